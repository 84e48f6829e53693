"""Which parameters of a student are those of its last stage."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from distill.late import ops
from distill.taps import Probe


def last_parameters(student: nn.Module, found: Probe) -> list[nn.Parameter]:
    """Return the parameters of the student's last stage: those behind the stage before it, up to its deepest feature.

    Behind means later in the order of the model's modules. A stage that ends in a pooling has no parameters of its own,
    so that the one before it counts. Of a model of one stage they are the parameters of the module that makes the
    deepest feature, or of the nearest one before it that has any. The levels of a pyramid are made by no module each:
    there they are the parameters of the feature pyramid network and of what follows it in the backbone, through which
    all levels pass. Without one, as in SSD, no late part makes all levels, and an image of small objects tells the
    coarse ones nothing: there they are all parameters of the backbone, or of a model without one all.
    """
    if found.is_pyramid:
        return _neck(student)
    modules = [name for name, _ in student.named_modules()]
    owners = [modules.index(name.rpartition(".")[0]) for name, _ in student.named_parameters()]
    parameters = list(student.parameters())

    def up_to(module: str) -> int:
        """Return how many parameters belong to the module or to one before it."""
        end = max(
            number for number, name in enumerate(modules) if f"{name}.".startswith(f"{module}." if module else "")
        )
        return sum(owner <= end for owner in owners)

    last = found.last.module
    # The deepest feature has a stage of its own where pooling has left one place, which ends no stage.
    is_stage = bool(found.stages) and found.stages[-1].octave == found.last.octave
    begins = [up_to(stage.module) for stage in reversed(found.stages[:-1] if is_stage else found.stages)]
    begins += [sum(owner < number for owner in owners) for number in range(modules.index(last), 0, -1)]
    for begin in begins:
        learned = [parameter for parameter in parameters[begin : up_to(last)] if parameter.requires_grad]
        if learned:
            return learned
    return [parameter for parameter in parameters if parameter.requires_grad]


def _neck(student: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a model's backbone from its feature pyramid network on, or of the nearest part with any.

    Where parts of a backbone are frozen, more of it counts, and in the end the whole model.
    """
    trunk = getattr(student, "backbone", None)
    if not isinstance(trunk, nn.Module):
        return _learned([student])
    parts = list(trunk.children())
    necks = [number for number, part in enumerate(parts) if isinstance(part, ops.FeaturePyramidNetwork)]
    choices = [*(parts[begin:] for begin in range(max(necks, default=0), 0, -1)), [trunk], [student]]
    return next(filter(None, map(_learned, choices)), [])


def _learned(parts: Iterable[nn.Module]) -> list[nn.Parameter]:
    return [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
