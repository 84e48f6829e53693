"""A small teacher and student on random images, for the suites of the core."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.data import Loader, Subset
from distill.data.memory_source import MemorySource


def make_source(num_images: int = 96, num_classes: int = 4, size: int = 8) -> MemorySource:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_images) % num_classes
    images = torch.randint(0, 100, (num_images, 1, size, size), generator=generator)
    for label in range(num_classes):  # a bright corner or edge a class, so that there is something to learn
        rows = slice(0, size // 2) if label % 2 else slice(size // 2, size)
        columns = slice(0, size // 2) if label // 2 else slice(size // 2, size)
        images[labels == label, :, rows, columns] += 120
    return MemorySource(images.to(torch.uint8), labels.numpy(), tuple(map(str, range(num_classes))))


@pytest.fixture(scope="session")
def source() -> MemorySource:
    return make_source()


@pytest.fixture
def make_loader(source):
    def make(first: int, last: int, *, training: bool, rank: int = 0, world_size: int = 1, batch_size: int = 16):
        return Loader(
            Subset(source, np.arange(first, last, dtype=np.int64)),
            batch_size=batch_size,
            mean=(0.5,),
            std=(0.25,),
            shuffle=training,
            drop_last=training,
            rank=rank,
            world_size=world_size,
            device=torch.device("cpu"),
        )

    return make
