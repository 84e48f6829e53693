"""A data set of a user's own with few classes."""

import torch

from distill.data import Split
from distill.data.base import Dataset
from distill.data.memory_source import MemorySource


class FewDigits(Dataset):
    """Four classes."""

    def __init__(self, split: Split | None = None) -> None:
        super().__init__(num_classes=4, image_shape=(1, 8, 8), mean=[0.5], std=[0.5], split=split, augment=())

    def read_source(self) -> MemorySource:
        labels = torch.arange(64) % 4
        return MemorySource(torch.zeros(64, 1, 8, 8, dtype=torch.uint8), labels.numpy(), list("abcd"), num_test=16)
