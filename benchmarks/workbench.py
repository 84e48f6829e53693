"""What all variants of a step share: models with equal weights, batches in memory, the optimiser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from distill.batch import Batch
from distill.data import Loader, Subset
from distill.data.memory_source import MemorySource
from distill.distiller import Precision
from distill.models import ResNet8, ResNet20

NUM_CLASSES = 100
NUM_BATCHES = 4


@dataclass(frozen=True)
class Workbench:
    """A teacher and a student of CIFAR size, and data for them.

    Args:
        batch: samples of a step.
        size: height and width of the images.
        width: channels of the student's first stage; the teacher has ``teacher_width``.
        teacher_width: channels of the teacher's first stage.
        device: where everything runs.
        precision: of the models' forward passes.
        channels_last: the memory layout of "our" layout; the other layout is torch's default.
    """

    batch: int = 128
    size: int = 32
    width: int = 16
    teacher_width: int = 32
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "float32"
    channels_last: bool = True

    def student(self, *, channels_last: bool) -> nn.Module:
        """Return a ResNet-8 in training mode; always the same weights."""
        torch.manual_seed(1)
        return self._place(ResNet8(num_classes=NUM_CLASSES, width=self.width), channels_last).train()

    def teacher(self, *, channels_last: bool) -> nn.Module:
        """Return a ResNet-20 in evaluation mode; always the same weights."""
        torch.manual_seed(0)
        model = ResNet20(num_classes=NUM_CLASSES, width=self.teacher_width)
        return self._place(model, channels_last).eval().requires_grad_(False)

    def batches(self, *, channels_last: bool) -> Iterator[Batch]:
        """Give the same few batches again and again, gathered and normalised each time anew."""
        loader = self.loader(channels_last=channels_last)
        while True:
            yield from loader.epoch(0)

    def loader(self, *, channels_last: bool) -> Loader:
        """Return what gives these batches."""
        return Loader(
            self._data(),
            batch_size=self.batch,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            shuffle=False,
            drop_last=True,
            device=self.device,
            channels_last=channels_last,
        )

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def _place(self, model: nn.Module, channels_last: bool) -> nn.Module:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return model.to(device=self.device, memory_format=layout)  # type: ignore[call-overload, no-any-return]

    def _data(self) -> Subset:
        generator = torch.Generator().manual_seed(0)
        number = NUM_BATCHES * self.batch
        images = torch.randint(0, 256, (number, 3, self.size, self.size), generator=generator, dtype=torch.uint8)
        source = MemorySource(images, np.arange(number) % NUM_CLASSES, tuple(map(str, range(NUM_CLASSES))))
        return Subset(source, np.arange(number, dtype=np.int64))


def sgd(parameters: object) -> torch.optim.Optimizer:
    """Make the optimiser of every variant."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)  # type: ignore[arg-type]
