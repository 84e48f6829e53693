"""The gradients of task and paths apart from each other, for those who weigh paths by them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from distill import distributed


class Gradients(ABC):
    """What task and paths want of the student, each for itself; computed when it is asked for, once a batch."""

    @abstractmethod
    def against_task(self) -> Tensor:
        """Return ``[key, 3]``: of each path's gradient and the task's the inner product, and both squared lengths.

        The task's squared length comes second, the path's third. All ranks get the same. Detached.
        """


class SharedGradients(Gradients):
    """Gradients in parameters of the student.

    Rows are means over the ranks: those of the whole batch, exactly. Each costs a backward pass as deep as the
    parameters lie, ``1 + keys`` in all, and as much memory as they take.

    Args:
        task: the supervised loss, scalar.
        paths: ``[key]``, the losses of the paths.
        parameters: in which the gradients are taken.
    """

    def __init__(self, task: Tensor, paths: Tensor, parameters: Sequence[Tensor]) -> None:
        self._task = task
        self._paths = paths
        self._parameters = tuple(parameters)
        self._rows: Tensor | None = None
        self._own: Tensor | None = None

    def rows(self) -> Tensor:
        """Return ``[1 + key, parameter]``, the task's first; zero where a loss doesn't reach a parameter. Detached."""
        if self._rows is None:
            losses = [self._task, *self._paths.unbind()]
            self._own = torch.stack([self._row(loss) for loss in losses])
            self._rows = distributed.mean(self._own)
        return self._rows

    def gram(self) -> Tensor:
        """Return the inner products of the rows, ``[1 + key, 1 + key]``."""
        rows = self.rows()
        return rows @ rows.mT

    def against_task(self) -> Tensor:
        rows = self.rows()
        squares = rows.square().sum(dim=1)  # no product of matrices: TF32 has too few digits to tell a sign
        inner = (rows[1:] * rows[0]).sum(dim=1)
        return torch.stack([inner, squares[0].expand_as(inner), squares[1:]], dim=1)

    def bend(self, direction: Tensor) -> Tensor:
        """Return a zero whose gradient makes ``direction`` of the sum of task and paths, in the parameters.

        The gradient of ``task + paths.sum() + bend(d)`` is ``d`` there, and what it was everywhere else, as in the
        paths' own adapters.

        Args:
            direction: ``[parameter]``, alike on all ranks.
        """
        change = direction - self.rows().sum(dim=0)
        flat = torch.cat([parameter.flatten() for parameter in self._parameters])
        bend = (change.to(flat) * flat).sum()  # no product of matrices: autocast would round its gradient
        return bend - bend.detach()

    def _row(self, loss: Tensor) -> Tensor:
        found = torch.autograd.grad(
            loss, self._parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([gradient.flatten() for gradient in found])


class TapGradients(Gradients):
    """Gradients in the activation where each path acts: what it wants of every sample there, and what the task wants.

    Activations lie close to the losses, so this costs little; but each rank has samples of its own, so that products
    are sums over the rank's samples, averaged over the ranks: they tell directions in the activations' space, not those
    of an update.

    Args:
        task: the supervised loss, scalar.
        paths: ``[key]``, the losses of the paths.
        places: for each key the activation where it acts.
    """

    def __init__(self, task: Tensor, paths: Tensor, places: Sequence[Tensor]) -> None:
        self._task = task
        self._paths = paths
        self._places = tuple(places)
        self._products: Tensor | None = None

    def against_task(self) -> Tensor:
        if self._products is None:
            products = [
                self._product(loss, place) for loss, place in zip(self._paths.unbind(), self._places, strict=True)
            ]
            self._products = distributed.mean(torch.stack(products)) if products else self._paths.new_zeros(0, 3)
        return self._products

    def _product(self, loss: Tensor, place: Tensor) -> Tensor:
        path, task = (_gradient(each, place) for each in (loss, self._task))
        return torch.stack([(path * task).sum(), task.square().sum(), path.square().sum()])


def _gradient(loss: Tensor, place: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, place, retain_graph=True, allow_unused=True, materialize_grads=True)
    return found.to(torch.promote_types(found.dtype, torch.float32))


def cosines(products: Tensor) -> Tensor:
    """Return the cosines of ``against_task``'s ``[key, 3]``, between -1 and 1; 0 where a gradient is none."""
    inner, task, path = products.double().unbind(dim=1)
    lengths = task.sqrt() * path.sqrt()
    return torch.where(lengths > 0, inner / lengths.clamp_min(torch.finfo(torch.float64).tiny), 0.0).clamp(-1, 1)
