"""A whole distiller on two real gloo ranks: its gradients are those of one process, its learned weights agree."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from on_ranks import on_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distill.aggregators import (
    FAMO,
    Adaptive,
    Aggregator,
    DistPro,
    Equal,
    GradientBalance,
    GradientDirection,
    GradNorm,
    LogSum,
)
from distill.aggregators.modifiers import CosineGate
from distill.batch import Batch
from distill.distiller import Distiller
from distill.models import ResNet8
from distill.paths import PKD, AttentionTransfer, Logits, NSTGram, SoftTarget
from distill.paths import Path as KnowledgePath
from distill.tasks import Classification
from distill.teacher import Teacher

TASK = Classification()


def gated(scope: Any, **options: Any) -> Aggregator:
    return Adaptive("layer", max_weight=None, modifiers=[CosineGate(scope, every=1, wait=1, smoothing=0.5, **options)])


AGGREGATORS: dict[str, Callable[[], Aggregator]] = {
    "equal": Equal,
    "adaptive": lambda: Adaptive(max_weight=None),
    "layer-wise": lambda: Adaptive("layer", max_weight=None),
    "log-sum": lambda: LogSum("layer"),
    "from the first losses": lambda: Adaptive(initial="log_loss"),
    "looking again": FAMO,
    "by gradients": lambda: GradNorm(every=1, include_task=True),
    "on held-out samples": lambda: DistPro(every=1),
    "on held-out samples, last": lambda: DistPro(every=2, scope="last", granularity="layer"),
    "gradients last": lambda: GradientBalance("PCD", {"tau": 0.1}),
    "gradients all": lambda: GradientBalance("PCD", {"tau": 0.1}, "all"),
    "direction": lambda: GradientDirection("GradDrop", scope="all"),
    **{
        f"gated in {scope}": partial(gated, scope, form=form)
        for scope, form in (("taps", "weighted"), ("last", "hard"), ("all", "weighted"))
    },
}
NUM_STEPS = 3


class Smooth(nn.Module):
    """A student without BatchNorm, of two stages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.Tanh(), nn.Conv2d(width, width, 1), nn.Tanh())
        self.layer2 = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.Tanh(), nn.Conv2d(width, width, 1), nn.Tanh())
        self.fc = nn.Linear(width, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layer2(self.layer1(images)).mean((2, 3)))
        return logits


class ExactTask(Classification):
    """Keeps the task's loss in float64, so that agreement can be asked for to the last digits."""

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, labels)


def make(aggregator: Aggregator, *, with_batchnorm: bool) -> tuple[Distiller, Teacher]:
    torch.manual_seed(3)
    student = ResNet8(num_classes=4, in_channels=1, width=4) if with_batchnorm else Smooth(3)
    paths: dict[str, KnowledgePath] = {
        "attention": AttentionTransfer(),
        "soft_target": SoftTarget(),
        "logits": Logits(),
    }
    if with_batchnorm:
        paths["nst"] = NSTGram()
        teacher = Teacher(ResNet8(num_classes=4, in_channels=1, width=8).double(), ExactTask())
    else:
        paths["pkd"] = PKD(gather=True)  # compares the samples of both ranks, as one process does
        teacher = Teacher(Smooth(5).double(), ExactTask())
    distiller = Distiller(
        student.double(), teacher, paths, aggregator.double(), ExactTask(), sample=samples(0).images[:2]
    ).double()
    return distiller, teacher


def samples(step: int) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(8, 1, 8, 8, generator=generator, dtype=torch.float64)
    images[4:] *= 3  # the second rank's losses differ
    return Batch(images, torch.arange(8) % 4, torch.arange(8))


def share(batch: Batch, part: slice) -> Batch:
    return Batch(batch.images[part], batch.labels[part], batch.indices[part])


def gradients(distiller: Distiller) -> dict[str, Tensor]:
    return {name: value.grad.clone() for name, value in distiller.named_parameters() if value.grad is not None}


def train(aggregator: Aggregator, part: slice, *, with_batchnorm: bool) -> dict[str, Any]:
    """Train on these samples of each batch; return the first gradients and what the training led to."""
    distiller, teacher = make(aggregator, with_batchnorm=with_batchnorm)
    module = DistributedDataParallel(distiller) if dist.is_initialized() else distiller
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05, momentum=0.9)
    first: dict[str, Tensor] = {}
    weights = []
    for step in range(NUM_STEPS):
        batch = share(samples(step), part)
        distiller.advance(step / NUM_STEPS)
        targets = distiller.targets(teacher(batch.images))
        result = module(batch, targets)
        optimizer.zero_grad()
        result.total.backward()
        first = first or gradients(distiller)
        optimizer.step()
        again = distiller.look_again(batch, targets) if aggregator.needs.second_look else None
        held_out = None
        if aggregator.needs.held_out and aggregator.wants_held_out:
            held_out = distiller.held_out_gradients(share(samples(NUM_STEPS + step), part))
        aggregator.after_step(again, held_out)
        weights.append(result.weights)
    gates = dict(distiller.named_buffers(prefix=""))
    return {
        "first": first,
        "weights": torch.stack(weights),
        "parameters": dict(distiller.named_parameters()),
        "gates": {name: value for name, value in gates.items() if "modifiers" in name},
    }


def work(rank: int) -> dict[str, dict[str, Any]]:
    part = slice(4 * rank, 4 * rank + 4)
    return {
        f"{name} {with_batchnorm}": train(make_aggregator(), part, with_batchnorm=with_batchnorm)
        for name, make_aggregator in AGGREGATORS.items()
        for with_batchnorm in (False, True)
    }


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    return on_ranks(work, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("with_batchnorm", [False, True])
def test_learned_weights_and_parameters_agree_bit_for_bit(name, with_batchnorm, ranks):
    first, second = (results[f"{name} {with_batchnorm}"] for results in ranks)
    assert torch.equal(first["weights"], second["weights"])
    for key, value in first["parameters"].items():
        assert torch.equal(value, second["parameters"][key]), key
    for key, value in first["gates"].items():
        assert torch.equal(value, second["gates"][key]), key


@pytest.mark.parametrize("name", AGGREGATORS)
def test_without_batchnorm_two_ranks_equal_one_process_on_the_whole_batch(name, ranks):
    whole = train(AGGREGATORS[name](), slice(None), with_batchnorm=False)
    mine = ranks[0][f"{name} False"]
    for key, value in whole["first"].items():
        torch.testing.assert_close(mine["first"][key], value, rtol=1e-9, atol=1e-12)
    for key, value in whole["parameters"].items():
        torch.testing.assert_close(mine["parameters"][key], value.detach(), rtol=1e-8, atol=1e-11)
    for key, value in whole["gates"].items():
        torch.testing.assert_close(mine["gates"][key], value, rtol=1e-6, atol=1e-8)
    assert bool(whole["gates"]) == name.startswith("gated")


@pytest.mark.parametrize("name", ["equal", "adaptive", "layer-wise"])
def test_with_batchnorm_two_ranks_equal_shards_in_one_process(name, ranks):
    """BatchNorm sees a rank's share: the gradient is the mean of the two shares' gradients."""
    shards = []
    for part in (slice(0, 4), slice(4, 8)):
        distiller, teacher = make(AGGREGATORS[name](), with_batchnorm=True)
        batch = share(samples(0), part)
        distiller(batch, distiller.targets(teacher(batch.images))).total.backward()
        shards.append(gradients(distiller))
    for key, value in ranks[0][f"{name} True"]["first"].items():
        torch.testing.assert_close(value, (shards[0][key] + shards[1][key]) / 2, rtol=1e-9, atol=1e-12)
