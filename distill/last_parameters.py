"""Which parameters of a student are those of its last stage."""

from __future__ import annotations

from torch import nn

from distill.taps import Probe


def last_parameters(student: nn.Module, found: Probe) -> list[nn.Parameter]:
    """Return the parameters of the student's last stage: those behind the stage before it, up to its deepest feature.

    Behind means later in the order of the model's modules. A stage that ends in a pooling has no parameters of its own,
    so that the one before it counts. Of a model of one stage they are the parameters of the module that makes the
    deepest feature, or of the nearest one before it that has any. The levels of a pyramid are made by no module each:
    there they are the parameters of the backbone's last part, which in a feature pyramid makes all levels, or all
    parameters where the model has no backbone.
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
    """Return the parameters of the last part of a model's backbone that has any."""
    trunk = getattr(student, "backbone", None)
    parts = [*reversed(list(trunk.children())), student] if isinstance(trunk, nn.Module) else [student]
    learned = ([parameter for parameter in part.parameters() if parameter.requires_grad] for part in parts)
    return next((parameters for parameters in learned if parameters), [])
