"""Where gradients of task and paths are compared."""

from __future__ import annotations

from typing import Literal

Scope = Literal["taps", "last", "all"]
"""Where gradients are looked at: ``taps``, each path where it acts, the deepest activation that it reads, or of a
detector's pyramid all levels that it reads; ``last``, the parameters of the student's last stage, in detectors those
through which all levels pass; ``all``, all parameters of the student.

``taps`` costs a backward pass a key, which ends there, and one for the task, which ends at the earliest of these
activations, and memory for the task's gradients in all of them at once, in float64: little where they are deep.
``last`` and ``all`` cost one a key and one for the task, as deep as these parameters lie, and memory for as many
gradients."""

ParameterScope = Literal["last", "all"]
"""A scope in which the gradients of all losses are taken in the same parameters."""


def parameter_scope(scope: ParameterScope) -> ParameterScope:
    """Return the option ``scope``.

    Raises:
        ValueError: it is none of parameters.
    """
    if scope not in ("last", "all"):
        raise ValueError(f"scope must be 'last' or 'all', found {scope!r}")
    return scope
