"""A whole training that learns weights on held-out samples: two and three gloo ranks make what one process makes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from on_ranks import on_ranks
from test_two_ranks import ExactTask, Smooth
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distill.aggregators import DistPro
from distill.data import Loader, Subset
from distill.data.held_out import hold_out
from distill.data.loaders import Loaders
from distill.data.memory_source import MemorySource
from distill.distiller import Distiller
from distill.host import LocalHost
from distill.optimization import optimizer_maker
from distill.paths import AttentionTransfer, SoftTarget
from distill.teacher import Teacher
from distill.trainer import Recipe, Trainer

CPU = torch.device("cpu")


class Rank(LocalHost):
    """One of several ranks of this test."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__(CPU)
        self.rank, self.world_size = rank, world_size

    def prepare(self, module: nn.Module, *, find_unused_parameters: bool) -> nn.Module:
        if self.world_size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=find_unused_parameters)


def train(rank: int, world_size: int, every: int = 2) -> dict[str, Any]:
    """Train for two epochs of five steps; return the weights of each step and the student."""
    images = torch.randint(0, 256, (96, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    source = MemorySource(images, torch.arange(96).numpy() % 4, tuple("abcd"))
    host = Rank(rank, world_size)
    training, held_out = hold_out(Subset(source, torch.arange(72).numpy()), 0.17, seed=0, num_workers=world_size)

    def loader(subset: Subset, **options: Any) -> Loader:
        made = Loader(
            subset, batch_size=12, mean=(0.5,), std=(0.25,), rank=rank, world_size=world_size, device=CPU, **options
        )
        made._mean, made._std = made._mean.double(), made._std.double()
        return made

    torch.manual_seed(3)
    student, task = Smooth(3).double(), ExactTask()
    teacher = Teacher(Smooth(5).double(), task)
    loaders = Loaders(
        train=loader(training, shuffle=True, drop_last=True),
        validation=None,
        test=loader(Subset(source, torch.arange(72, 96).numpy()), shuffle=False, drop_last=False),
        held_out=loader(held_out, shuffle=True, drop_last=True),
    )
    sample = next(iter(loaders.train.epoch(0))).images[:2]
    distiller = Distiller(
        student,
        teacher,
        {"attention": AttentionTransfer(), "soft_target": SoftTarget()},
        DistPro(every=every).double(),
        task,
        sample=sample,
    ).double()
    recipe = Recipe(epochs=2, optimizer=optimizer_maker(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}), log_every=1)
    trainer = Trainer(distiller, teacher, loaders, recipe, host, classes=tuple("0123"))
    trainer.run()
    table = trainer.trajectory.table()
    return {
        "weights": torch.tensor([table[f"{name}/weight"].to_pylist() for name in ("attention", "soft_target")]),
        "logits": dict(distiller.aggregator.named_buffers())["_logits"],
        "student": torch.cat([value.detach().flatten() for value in student.parameters()]),
    }


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_agree_bit_for_bit_and_make_what_one_process_makes(world_size: int, tmp_path: Path) -> None:
    first, *others = on_ranks(partial(train, world_size=world_size), tmp_path, world_size)
    for other in others:
        for name, value in first.items():
            assert torch.equal(value, other[name]), name
    whole = train(0, 1)
    assert whole["weights"].shape == (2, 10)
    assert whole["logits"].abs().min() > 0.05
    torch.testing.assert_close(first["logits"], whole["logits"], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(first["weights"], whole["weights"], rtol=1e-5, atol=0)
    torch.testing.assert_close(first["student"], whole["student"], rtol=1e-6, atol=1e-9)
    assert not torch.equal(whole["weights"], train(0, 1, every=5)["weights"])
