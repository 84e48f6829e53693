"""A transform that fixes the size sees annotated images in their own; the others see them fitted."""

import numpy as np
import pytest
import torch

from distill.data import MaskFolder
from distill.data.annotation import Sample
from distill.data.augmentation import read_annotated
from distill.data.transforms.base import Transform

SIZE = [16, 20]


class Watching(Transform):
    """Notes the sizes of what it sees."""

    num_draws = 1

    def __init__(self, fixes_size):
        self.fixes_size = fixes_size
        self.seen = []

    def __call__(self, images, draws):
        return images

    def together(self, sample: Sample, draws):
        self.seen.append(tuple(sample.image.shape[1:]))
        return sample


@pytest.mark.parametrize("fixes_size", [True, False])
def test_images_are_fitted_before_or_behind(mask_root, fixes_size):
    data = MaskFolder(
        root=str(mask_root({"train": 5, "val": 2, "test": 2})), classes=["a", "b", "c"], size=SIZE, num_threads=1
    ).load()
    watching = Watching(fixes_size)
    positions = np.arange(2)
    own = [tuple(image.shape[1:]) for image in data.train.read(positions)]
    images, masks = read_annotated(data.train, positions, [(watching, torch.zeros(2, 1))])
    assert watching.seen == (own if fixes_size else [tuple(SIZE)] * 2)
    assert tuple(SIZE) not in own
    assert images.shape[2:] == masks.shape[1:] == tuple(SIZE)
