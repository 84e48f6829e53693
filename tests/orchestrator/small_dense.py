"""A task, a data set and a model of a user's own with masks, as an experiment file names them under ``modules``."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.data.annotation import Mask, Sample
from distill.data.base import Dataset
from distill.data.source import Source
from distill.data.split import Split
from distill.tasks import SemanticSegmentation

SIDE, NUM_IMAGES, NUM_TEST = 16, 48, 16
CLASSES = ("background", "square", "wall/floor, painted")


class Squares(Source):
    """Images of noise with one bright square, whose colour is its class."""

    annotation = Mask

    def __init__(self) -> None:
        super().__init__(np.zeros(NUM_IMAGES, dtype=np.int64), CLASSES, num_test=NUM_TEST)

    def fetch(self) -> None:
        pass

    def read(self, indices: Any) -> Tensor:
        return torch.stack([self._sample(int(index)).image for index in indices])

    def read_views(self, indices: Any, view: Any) -> list[Tensor]:
        return [view(image, place) for place, image in enumerate(self.read(indices))]

    def read_samples(self, indices: Any, view: Any) -> list[Sample]:
        return [view(self._sample(int(index)), place) for place, index in enumerate(indices)]

    def fit(self, image: Tensor) -> Tensor:
        return image

    def fit_sample(self, sample: Sample) -> Sample:
        return sample

    def digest(self) -> bytes:
        return b"squares"

    def _sample(self, index: int) -> Sample:
        numbers = torch.Generator().manual_seed(index)
        image = torch.randint(0, 60, (3, SIDE, SIDE), generator=numbers, dtype=torch.uint8)
        top, left, kind = (
            int(torch.randint(low, high, (), generator=numbers)) for low, high in ((0, 8), (0, 8), (1, 3))
        )
        values = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
        image[kind, top : top + 8, left : left + 8] = 220
        values[top : top + 8, left : left + 8] = kind
        return Sample(image, Mask(values))


class SquareMasks(Dataset):
    """Squares on noise, with the class of every pixel."""

    annotation = Mask

    def __init__(self, split: Split | None = None) -> None:
        super().__init__(
            num_classes=len(CLASSES), image_shape=(3, SIDE, SIDE), mean=[0.3], std=[0.3], split=split, augment=()
        )

    def read_source(self) -> Source:
        return Squares()


class SmallFCN(nn.Module):
    """Two convolutions and a head of eight, with its output in a mapping as torchvision's models have it."""

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 4) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.classifier = nn.Conv2d(width, num_classes, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        scores = self.classifier(self.backbone(images).relu())
        return {"out": F.interpolate(scores, size=images.shape[-2:], mode="bilinear")}


class Painting(SemanticSegmentation):
    """A user's own task with fewer metrics."""

    metrics_known = ("miou", "loss")


def squares(split: Split | None = None) -> SquareMasks:
    """Make the data set."""
    return SquareMasks(split)
