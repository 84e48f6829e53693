"""torchdistill's losses on the same maps, for the paths that it has: what benchmarks.paths compares ours with.

torchdistill 1.1.5 is installed for the benchmark only. It has no targets: its losses compute the teacher's side every
time, so they are compared with our target and loss together. Where its loss needs features of equal width, our adapter
brings them there; where it has learned modules of its own, those are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from distill.adapter import Adapter


class Maps(NamedTuple):
    """What both models gave for one batch.

    Attributes:
        student: ``[batch, channel, height, width]`` by stage, and the logits under ``out``.
        teacher: likewise.
        stages: names of the stages.
    """

    student: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor]
    stages: Sequence[str]

    @property
    def last(self) -> str:
        """Name of the deepest stage."""
        return self.stages[-1]


class Rival(NamedTuple):
    """A loss, and the modules that learn with it."""

    loss: Callable[[], Tensor]
    modules: nn.ModuleList


def make_rival(name: str, maps: Maps) -> Rival | None:
    """Return torchdistill's loss for the path ``name``; ``None`` where it has none.

    Raises:
        ImportError: torchdistill is not installed.
    """
    maker = _MAKERS.get(name)
    return None if maker is None else maker(maps)


def _losses() -> Any:
    from torchdistill.losses import mid_level  # type: ignore[import-not-found]

    return mid_level


def _wrappers() -> Any:
    from torchdistill.models import wrapper  # type: ignore[import-not-found]

    return wrapper


def _io(values: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return {name: {"output": value} for name, value in values.items()}


def _pooled(maps: Maps) -> tuple[dict[str, Any], dict[str, Any]]:
    student, teacher = ({"pooled": side[maps.last].mean((2, 3))} for side in (maps.student, maps.teacher))
    return _io(student), _io(teacher)


def _adapters(maps: Maps) -> nn.ModuleDict:
    return nn.ModuleDict(
        {stage: Adapter(maps.student[stage].shape[1], maps.teacher[stage].shape[1]) for stage in maps.stages}
    ).to(maps.student[maps.last].device)


def _plain(make: Callable[[Any, Maps], nn.Module]) -> Callable[[Maps], Rival]:
    """Make a rival of a loss that reads maps and logits as they are."""

    def maker(maps: Maps) -> Rival:
        loss = make(_losses(), maps)
        return Rival(lambda: loss(_io(maps.student), _io(maps.teacher)), nn.ModuleList())

    return maker


def _between_pooled(make: Callable[[Any], nn.Module]) -> Callable[[Maps], Rival]:
    """Make a rival of a loss between pooled features."""

    def maker(maps: Maps) -> Rival:
        loss = make(_losses())
        return Rival(lambda: loss(*_pooled(maps)), nn.ModuleList())

    return maker


def _adapted(make: Callable[[Any, Maps], nn.Module]) -> Callable[[Maps], Rival]:
    """Make a rival of a loss between maps of equal width."""

    def maker(maps: Maps) -> Rival:
        loss, adapters = make(_losses(), maps), _adapters(maps)

        def compute() -> Tensor:
            student = {stage: adapters[stage](maps.student[stage]) for stage in maps.stages}
            result: Tensor = loss(_io(student), _io(maps.teacher))
            return result

        return Rival(compute, nn.ModuleList([adapters]))

    return maker


def _sides(stage: str) -> dict[str, Any]:
    side = {"io": "output", "path": stage}
    return {"teacher": side, "student": side}


def _attention(mode: str) -> Callable[[Any, Maps], nn.Module]:
    def make(losses: Any, maps: Maps) -> nn.Module:
        loss: nn.Module = losses.ATLoss({stage: _sides(stage) for stage in maps.stages}, mode=mode)
        return loss

    return make


def _flow(losses: Any, maps: Maps) -> nn.Module:
    pairs = {}
    for first, second in zip(maps.stages[:-1], maps.stages[1:], strict=True):
        pairs[f"{first}-{second}"] = {
            f"{side}_{place}": {"io": "output", "path": stage}
            for side in ("teacher", "student")
            for place, stage in (("first", first), ("second", second))
        }
    loss: nn.Module = losses.FSPLoss(pairs)
    return loss


def _channels(losses: Any, maps: Maps) -> nn.Module:
    loss: nn.Module = losses.ChSimLoss({stage: _sides(stage) for stage in maps.stages})
    return loss


def _correlation_congruence(maps: Maps) -> Rival:
    device = maps.student[maps.last].device
    own, other = (nn.Linear(side[maps.last].shape[1], 128).to(device) for side in (maps.student, maps.teacher))
    kernel = {"type": "gaussian", "gamma": 0.4, "max_p": 2}
    loss = _losses().CCKDLoss("linear", "linear", kernel, "batchmean")

    def compute() -> Tensor:
        student, teacher = _pooled(maps)
        sides = ({"linear": own(student["pooled"]["output"])}, {"linear": other(teacher["pooled"]["output"])})
        result: Tensor = loss(_io(sides[0]), _io(sides[1]))
        return result

    return Rival(compute, nn.ModuleList([own, other]))


def _variational(maps: Maps) -> Rival:
    device = maps.student[maps.last].device
    regressors = nn.ModuleDict(
        {
            stage: _wrappers().Regressor4VID(
                maps.student[stage].shape[1], maps.teacher[stage].shape[1], maps.teacher[stage].shape[1], 1e-5, 5.0
            )
            for stage in maps.stages
        }
    ).to(device)
    loss = _losses().VIDLoss({stage: _sides(stage) for stage in maps.stages})

    def compute() -> Tensor:
        student = {stage: {"output": regressors[stage](maps.student[stage])} for stage in maps.stages}
        result: Tensor = loss(student, _io(maps.teacher))
        return result

    return Rival(compute, nn.ModuleList([regressors]))


def _factors(maps: Maps) -> Rival:
    own, other = maps.student[maps.last], maps.teacher[maps.last]
    paraphraser = _wrappers().Paraphraser4FactorTransfer(0.5, other.shape[1], uses_decoder=False).to(other.device)
    translator = _wrappers().Translator4FactorTransfer(own.shape[1], other.shape[1] // 2).to(own.device)
    loss = _losses().FTLoss()

    def compute() -> Tensor:
        with torch.no_grad():
            factor = paraphraser(other)
        result: Tensor = loss({"translator": {"output": translator(own)}}, {"paraphraser": {"output": factor}})
        return result

    return Rival(compute, nn.ModuleList([translator]))


def _relations(distance: float, angle: float) -> Callable[[Any], nn.Module]:
    def make(losses: Any) -> nn.Module:
        loss: nn.Module = losses.RKDLoss("pooled", "pooled", distance, angle, "mean")
        return loss

    return make


_MAKERS: dict[str, Callable[[Maps], Rival]] = {
    "SoftTarget": _plain(lambda losses, maps: losses.KDLoss("out", "output", "out", "output", 4.0, alpha=0, beta=1)),
    "Logits": _plain(lambda losses, maps: _LogitDistance()),
    "AttentionTransfer": _plain(_attention("code")),
    "AttentionTransferNorm": _plain(_attention("paper")),
    "DIST": _plain(lambda losses, maps: losses.DISTLoss("out", "output", "out", "output")),
    "SP": _plain(lambda losses, maps: losses.SPKDLoss(maps.last, maps.last, "batchmean")),
    "PKT": _between_pooled(lambda losses: losses.PKTLoss("pooled", "output", "pooled", "output")),
    "RKDDistance": _between_pooled(_relations(1.0, 0.0)),
    "RKDAngle": _between_pooled(_relations(0.0, 1.0)),
    "CC": _correlation_congruence,
    "FSP": _adapted(_flow),
    "ICKD": _adapted(_channels),
    "VID": _variational,
    "FT": _factors,
}


class _LogitDistance(nn.Module):
    """What torchdistill's wrapper of ``nn.MSELoss`` computes."""

    def forward(self, student: Any, teacher: Any) -> Tensor:
        return nn.functional.mse_loss(student["out"]["output"], teacher["out"]["output"])
