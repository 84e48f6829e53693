"""What all variants of a step share: models with equal weights, batches in memory, the optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torchvision
from torch import nn

from distill.batch import Batch
from distill.data import Loader, Subset
from distill.data.memory_source import MemorySource
from distill.distiller import Precision
from distill.models import CifarResNet18, CifarResNet50, ResNet8, ResNet20

NUM_CLASSES = 100
NUM_BATCHES = 4


Compiled = TypeVar("Compiled", bound=nn.Module)


@dataclass(frozen=True)
class Pair:
    """Who learns from whom, and on what.

    Args:
        teacher: makes it, given ``num_classes``.
        student: makes it, given ``num_classes``.
        size: height and width of the images.
        stages: where both have a feature map.
    """

    teacher: Callable[..., nn.Module]
    student: Callable[..., nn.Module]
    size: int
    stages: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")


PAIRS = {
    "resnet20-resnet8": Pair(
        partial(ResNet20, width=32), partial(ResNet8, width=16), 32, ("layer1", "layer2", "layer3")
    ),
    "resnet50-resnet18": Pair(CifarResNet50, CifarResNet18, 32),
    "resnet34-resnet18": Pair(torchvision.models.resnet34, torchvision.models.resnet18, 224),
}
"""By name; the two larger ones want a GPU."""


@dataclass(frozen=True)
class Workbench:
    """A teacher and a student, and data for them.

    Args:
        pair: the two, and the size of the images.
        batch: samples of a step.
        device: where everything runs.
        precision: of the models' forward passes.
        channels_last: the memory layout of "our" layout; the other layout is torch's default.
        compile: whether our steps, and the plain one in our layout, are compiled.
    """

    pair: Pair = PAIRS["resnet20-resnet8"]
    batch: int = 128
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: Precision = "float32"
    channels_last: bool = True
    compile: bool = False

    def student(self, *, channels_last: bool) -> nn.Module:
        """Return the student in training mode; always the same weights."""
        torch.manual_seed(1)
        return self._place(self.pair.student(num_classes=NUM_CLASSES), channels_last).train()

    def teacher(self, *, channels_last: bool) -> nn.Module:
        """Return the teacher in evaluation mode; always the same weights."""
        torch.manual_seed(0)
        model = self.pair.teacher(num_classes=NUM_CLASSES)
        return self._place(model, channels_last).eval().requires_grad_(False)

    def compiled(self, module: Compiled) -> Any:
        """Return the module, compiled where ours is."""
        return torch.compile(module) if self.compile else module

    def channels(self, model: nn.Module) -> list[int]:
        """Return the channels of a model's stages."""
        seen: list[int] = []
        hooks = [
            model.get_submodule(stage).register_forward_hook(
                lambda module, inputs, output: seen.append(output.shape[1])
            )
            for stage in self.pair.stages
        ]
        with torch.no_grad(), self.autocast():
            model(torch.zeros(2, 3, self.pair.size, self.pair.size, device=self.device))
        for hook in hooks:
            hook.remove()
        return seen

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
        images = torch.randint(
            0, 256, (number, 3, self.pair.size, self.pair.size), generator=generator, dtype=torch.uint8
        )
        source = MemorySource(images, np.arange(number) % NUM_CLASSES, tuple(map(str, range(NUM_CLASSES))))
        return Subset(source, np.arange(number, dtype=np.int64))


def sgd(parameters: object) -> torch.optim.Optimizer:
    """Make the optimiser of every variant."""
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=5e-4)  # type: ignore[arg-type]
