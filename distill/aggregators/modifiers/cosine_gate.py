"""A gate for each path: does it pull the student where the labels do not?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from distill.aggregators.gradients import cosines
from distill.aggregators.modifiers.base import Modifier
from distill.aggregators.needs import Needs
from distill.gradient_scope import Scope
from distill.options import finite, whole

if TYPE_CHECKING:
    from distill.aggregators.base import Losses

Form = Literal["hard", "smooth", "weighted"]

ROUNDING = 1e-6
"""A cosine of gradients at right angles is no larger than this, in float32."""


class CosineGate(Modifier):
    """Shuts out a path whose gradient has come to point against the task's.

    In each of the first ``dense`` optimiser steps, and at every ``every``-th of all, it looks at the cosine ``c_i`` of
    the path's gradient with the task's. With ``m_i`` their exponential mean and ``e_i`` its standard error, of as many
    looks as the mean amounts to::

        hard:      gate = 0 where m_i + z e_i < 0, else 1     # start: closed: 1 where m_i - z e_i > 0, else 0
        smooth:    gate = min(1, 2 Phi(m_i / e_i))            # the chance of such a mean where there is no harm
        weighted:  gate = max(0, m_i)
        w_i' = gate * w_i

    A gate that starts open trusts every path until the evidence is against it; one that starts closed wants evidence
    first, and shuts out paths whose gradient is at right angles to the task's, as that of attention often is, although
    they help. The aggregator goes on learning from the losses behind a closed gate, and the gate goes on looking, so it
    can open again.

    A gradient that is zero, as that of a path whose time has not come, or not finite tells nothing, and the gate stays;
    so it does between the looks. A mean nearer to zero than rounding is zero. Where one step has several batches
    (accumulation), the first is looked at. Steps are those that ``Distiller.advance`` announces: a loop of your own has
    to call it, or the gate never looks.

    Looks cost: with ``last`` and ``all`` a backward pass as deep as the scope for the task and for each path, and
    memory for as many gradients; with ``taps`` one for each path, which ends where it acts, and one for the task, which
    ends at the earliest of these activations, and memory for its gradients in all of them at once, in float64. That is
    little where paths act in the last stage, and more than a step where ``layer`` granularity has keys that act in the
    first. All ranks decide alike; with ``taps`` from products averaged over them.

    Source: Du et al. 2018, *Adapting auxiliary losses using gradient similarity* (arXiv:1812.02224): ``weighted`` and,
    with ``z = 0``, ``hard`` on a single batch (``smoothing: 0``). The mean, its error and ``smooth`` are ours.

    Args:
        scope: where gradients are compared; see :data:`~distill.gradient_scope.Scope`.
        every: optimiser steps from one look to the next behind the first ``dense`` ones, at least 1.
        smoothing: share of the old mean in the new one, from 0 to below 1.
        z: standard errors of certainty, at least 0.
        form: ``hard``, ``smooth`` or ``weighted``.
        start: whether gates are ``open`` or ``closed`` without evidence; ``hard`` alone can start closed.
        wait: looks before a gate may move, at least 1; ``weighted`` moves with the first.
        dense: steps at the start that are all looked at, at least 0: weights that follow the inverse of a loss let an
            easily fitted path take over within some dozens of steps.

    Raises:
        ValueError: an option is out of bounds.
    """

    compiles = False
    _mean: Tensor  # [key]: sum of (1 - smoothing) * smoothing^age * cosine
    _square: Tensor  # [key]: likewise of squared cosines
    _looks: Tensor  # [key]: those that told something
    _gates: Tensor  # [key]

    def __init__(
        self,
        scope: Scope = "taps",
        every: int = 20,
        smoothing: float = 0.9,
        z: float = 2.0,
        form: Form = "hard",
        start: Literal["open", "closed"] = "open",
        wait: int = 3,
        dense: int = 30,
    ) -> None:
        super().__init__()
        for name, value, valid in (
            ("scope", scope, ("taps", "last", "all")),
            ("form", form, ("hard", "smooth", "weighted")),
            ("start", start, ("open", "closed")),
        ):
            if value not in valid:
                raise ValueError(f"{name} must be one of {', '.join(valid)}, found {value!r}")
        if start == "closed" and form != "hard":
            raise ValueError(f"start: closed needs form: hard, found {form!r}")
        self.scope = scope
        self.every = whole("every", every, at_least=1)
        self.smoothing = finite("smoothing", smoothing, at_least=0)
        if self.smoothing >= 1:
            raise ValueError(f"smoothing must be below 1, or the mean would never change, found {smoothing!r}")
        self.z = finite("z", z, at_least=0)
        self.form = form
        self.start = start
        self.wait = whole("wait", wait, at_least=1)
        self.dense = whole("dense", dense, at_least=0)
        self._step = -1
        self._due = False

    @property
    def needs(self) -> Needs:
        return Needs(gradients=frozenset({self.scope}))

    def allocate(self, num_keys: int) -> None:
        self.register_buffer("_mean", torch.zeros(num_keys, dtype=torch.float64))
        self.register_buffer("_square", torch.zeros(num_keys, dtype=torch.float64))
        self.register_buffer("_looks", torch.zeros(num_keys, dtype=torch.float64))
        self.register_buffer("_gates", torch.full((num_keys,), float(self.start == "open"), dtype=torch.float64))

    def advance(self, progress: float) -> None:
        self._step += 1
        self._due = self._step < self.dense or self._step % self.every == 0

    def reweigh(self, weights: Tensor, losses: Losses) -> Tensor:
        if self.training and self._due:
            self._due = False
            self._look(losses.gradients[self.scope].against_task())
        return weights * self._gates.to(weights)

    def get_extra_state(self) -> dict[str, Any]:
        """Return how many steps there were, for checkpoints."""
        return {"step": self._step}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`get_extra_state` returned."""
        self._step = state["step"]

    @torch.no_grad()
    def _look(self, products: Tensor) -> None:
        products = products.to(self._mean)
        told = (products.isfinite() & (products[:, 1:] > 0).all(dim=1, keepdim=True)).all(dim=1)
        cosine = cosines(products)
        for average, value in ((self._mean, cosine), (self._square, cosine.square())):
            average.copy_(torch.where(told, average.lerp(value, 1 - self.smoothing), average))
        self._looks += told
        self._gates.copy_(torch.where(told, self._judge(), self._gates))

    def _judge(self) -> Tensor:
        """Return the gates ``[key]``; without meaning where there was no look."""
        old = self.smoothing**self._looks  # what is left of the zeros at the start
        mean = self._mean / (1 - old)
        mean = torch.where(mean.abs() < ROUNDING, 0.0, mean)
        variance = (self._square / (1 - old) - mean.square()).clamp_min(0)
        # Of a mean with weights s^age: the square of their sum over the sum of their squares.
        looks = (1 - old) * (1 + self.smoothing) / ((1 + old) * (1 - self.smoothing))
        error = (variance / (looks - 1).clamp_min(1.0)).sqrt()
        if self.form == "weighted":
            return mean.clamp_min(0)
        if self.start == "closed":
            return ((mean - self.z * error > 0) & (self._looks >= self.wait)).to(mean)
        if self.form == "smooth":
            gates = (2 * torch.special.ndtr(mean / error.clamp_min(1e-12))).clamp(max=1)
        else:
            gates = (mean + self.z * error >= 0).to(mean)
        return torch.where(self._looks >= self.wait, gates, torch.ones_like(gates))
