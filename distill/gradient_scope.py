"""Where gradients of task and paths are compared."""

from __future__ import annotations

from typing import Literal

Scope = Literal["taps", "last", "all"]
"""Where gradients are looked at: ``taps``, each path where it acts, the deepest activation that it reads; ``last``, the
parameters of the student's last stage; ``all``, all parameters of the student.

``taps`` costs two backward passes a key, its own and the task's, which end at that activation, and memory for these two
gradients and their product in float64: little where activations are deep. ``last`` and ``all`` cost one a key and one
for the task, as deep as these parameters lie, and memory for as many gradients."""
