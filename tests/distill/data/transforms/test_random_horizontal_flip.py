import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from distill.counter_random import uniform
from distill.data.transforms import RandomHorizontalFlip
from distill.data.transforms.random_horizontal_flip import _mirrored

IMAGES = torch.arange(40 * 6, dtype=torch.uint8).reshape(40, 1, 2, 3)


def test_mirrors_where_the_draw_is_below_p():
    draws = uniform(0, 0, np.arange(40), 1)
    result = RandomHorizontalFlip(0.3)(IMAGES, draws)
    for image, draw, flipped in zip(IMAGES, draws[:, 0], result, strict=True):
        assert flipped.equal(functional.horizontal_flip(image) if draw < 0.3 else image)


def test_a_gpu_s_way_to_mirror_gives_the_same_images():
    chosen = torch.tensor([3, 0, 39])
    expected = IMAGES.clone()
    expected[chosen] = functional.horizontal_flip(IMAGES[chosen])
    assert _mirrored(IMAGES, chosen).equal(expected)


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_share_of_mirrored_images_is_p(p):
    images = torch.tensor([0.0, 1.0]).expand(10_000, 1, 1, 2)
    share = RandomHorizontalFlip(p)(images, uniform(3, 1, np.arange(10_000), 1))[:, 0, 0, 0].mean()
    assert share == pytest.approx(p, abs=0.02)  # 4 standard errors


def test_never_and_always():
    draws = uniform(0, 0, np.arange(40), 1)
    assert RandomHorizontalFlip(0.0)(IMAGES, draws).equal(IMAGES)
    assert RandomHorizontalFlip(1.0)(IMAGES, draws).equal(IMAGES.flip(3))


@pytest.mark.parametrize("p", [-0.1, 1.5])
def test_p_must_be_a_probability(p):
    with pytest.raises(ValueError, match="p must be a probability"):
        RandomHorizontalFlip(p)
