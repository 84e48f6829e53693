import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from distill.data.ink import add_border, enlarge

DIGITS = load_digits().images


def turned_by_torch(digit, side, lean):
    """The same by ``grid_sample``: a row and a column of zeros lie round the digit."""
    slope = lean / 64
    theta = torch.tensor([[[1.0, slope, 0.0], [-slope, 1.0, 0.0]]], dtype=torch.float64)
    grid = F.affine_grid(theta, [1, 1, side, side], align_corners=False)
    ink = F.grid_sample(torch.from_numpy(digit)[None, None], grid, padding_mode="zeros", align_corners=False)
    return (ink[0, 0] * 255 / 16).numpy()


@pytest.mark.parametrize(("side", "lean"), [(8, 0), (13, 0), (28, 0), (20, 16), (21, -16), (9, 5)])
def test_digits_are_enlarged_and_turned_as_by_torch(side, lean):
    for number in (0, 1, 4, 7):
        ink = enlarge(add_border(DIGITS[number : number + 1])[0], side, lean)
        assert ink.shape == (side, side)
        assert ink.dtype == np.uint8
        # Positions are cut to 1/256 of a pixel, which changes ink by at most 2, and ink to whole numbers.
        assert np.abs(ink - turned_by_torch(DIGITS[number], side, lean)).max() < 3


def test_a_digit_of_its_own_size_is_only_rescaled():
    ink = enlarge(add_border(DIGITS[:1])[0], 8, 0)
    assert ink.tolist() == [[math.floor(level * 255 / 16) for level in row] for row in DIGITS[0]]


def test_full_ink_is_255():
    full = add_border(np.full((1, 8, 8), 16))
    assert enlarge(full[0], 24, 0)[2:-2, 2:-2].min() == 255
    assert enlarge(np.zeros_like(full[0]), 24, 0).max() == 0
