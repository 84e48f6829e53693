"""Where gradients of task and paths are compared."""

from __future__ import annotations

from typing import Literal

Scope = Literal["taps", "last", "all"]
"""Where gradients are looked at: ``taps``, each path where it acts, the deepest activation that it reads (which costs
next to nothing); ``last``, the parameters of the student's last stage; ``all``, all parameters of the student."""
