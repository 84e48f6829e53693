"""The gradients of task and paths apart from each other, for those who weigh paths by them."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from distill import distributed


class Gradients(ABC):
    """What task and paths want of the student, each for itself; computed when it is asked for, once a batch."""

    @abstractmethod
    def against_task(self) -> Tensor:
        """Return ``[key, 3]``: of each path's gradient and the task's the inner product, and both squared lengths.

        The task's squared length comes second, the path's third. All ranks get the same. Detached, in float64: the
        squares of a small loss's gradient are too small for float32.
        """

    @abstractmethod
    def in_parameters(self) -> SharedGradients:
        """Return these gradients where all of them are taken in the same parameters.

        Raises:
            ValueError: each is taken in an activation of its own.
        """


class SharedGradients(Gradients):
    """Gradients in parameters of the student.

    Rows are means over the ranks: those of the whole batch, exactly. Each costs a backward pass as deep as the
    parameters lie, ``1 + keys`` in all, and as much memory as they take; one more while they are filled.

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

    def in_parameters(self) -> SharedGradients:
        return self

    def rows(self) -> Tensor:
        """Return ``[1 + key, parameter]``, the task's first; zero where a loss doesn't reach a parameter. Detached."""
        if self._rows is None:
            losses = [self._task, *self._paths.unbind()]
            sizes = [parameter.numel() for parameter in self._parameters]
            rows = self._parameters[0].new_empty(len(losses), sum(sizes), dtype=_common_type(self._parameters))
            for loss, row in zip(losses, rows, strict=True):
                for part, gradient in zip(row.split(sizes), _gradients(loss, self._parameters), strict=True):
                    part.copy_(gradient.flatten())
            self._rows = distributed.mean_(rows)
        return self._rows

    def lengths(self) -> Tensor:
        """Return the rows' lengths, ``[1 + key]``, in float64; one row at a time is copied for that."""
        return torch.stack([_inner(row, row) for row in self.rows()]).sqrt()

    def gram(self) -> Tensor:
        """Return the inner products of the rows, ``[1 + key, 1 + key]``; in the rows' type, summed in float64."""
        rows = self.rows()
        # No product of matrices: TF32 and autocast have too few digits to tell a sign.
        columns = [torch.stack([_inner(row, other) for other in rows]) for row in rows]
        return torch.stack(columns).to(rows.dtype)

    def against_task(self) -> Tensor:
        task, *paths = self.rows()
        square = _inner(task, task)
        products = [torch.stack([_inner(path, task), square, _inner(path, path)]) for path in paths]
        return torch.stack(products) if products else square.new_zeros(0, 3)

    def bend(self, direction: Tensor) -> Tensor:
        """Return a zero whose gradient makes ``direction`` of the sum of task and paths, in the parameters.

        The gradient of ``task + paths.sum() + bend(d)`` is ``d`` there, and what it was everywhere else, as in the
        paths' own adapters.

        Args:
            direction: ``[parameter]``, alike on all ranks.
        """
        change = direction - self.rows().sum(dim=0)
        flat = torch.cat([parameter.flatten() for parameter in self._parameters])
        return (change.to(flat) * (flat - flat.detach())).sum()  # no product of matrices, which autocast would round


class TapGradients(Gradients):
    """Gradients in the activations where each path acts: what it wants of every sample there, and what the task wants.

    Activations lie close to the losses, so this costs little: a backward pass a key and one for the task, whose
    gradients in all these activations are held at once. But each rank has samples of its own, so that products are sums
    over the rank's samples, averaged over the ranks: they tell directions in the activations' space, not those of an
    update.

    Args:
        task: the supervised loss, scalar.
        paths: ``[key]``, the losses of the paths.
        places: for each key the activations where it acts; products are sums over them.
    """

    def __init__(self, task: Tensor, paths: Tensor, places: Sequence[Sequence[Tensor]]) -> None:
        self._task = task
        self._paths = paths
        self._places = tuple(map(tuple, places))
        self._products: Tensor | None = None

    def against_task(self) -> Tensor:
        if self._products is None:
            tasks = self._task_gradients()
            products = [
                self._product(loss, places, tasks)
                for loss, places in zip(self._paths.unbind(), self._places, strict=True)
            ]
            empty = self._paths.new_zeros(0, 3, dtype=torch.float64)
            self._products = distributed.mean(torch.stack(products)) if products else empty
        return self._products

    def in_parameters(self) -> SharedGradients:
        raise ValueError("gradients in parameters must be asked for in scope 'last' or 'all', found 'taps'")

    def _task_gradients(self) -> dict[int, Tensor]:
        """Return the task's gradient in each place, of one backward pass for all of them."""
        places = list({id(place): place for places in self._places for place in places}.values())
        gradients = _gradients(self._task, places) if places else []
        return {id(place): each.double() for place, each in zip(places, gradients, strict=True)}

    def _product(self, loss: Tensor, places: Sequence[Tensor], tasks: Mapping[int, Tensor]) -> Tensor:
        """Return a path's row of :meth:`against_task`."""
        products = []
        for place, gradient in zip(places, _gradients(loss, places), strict=True):
            task, path = tasks[id(place)], gradient.double()
            products.append(torch.stack([_inner(path, task), _inner(task, task), _inner(path, path)]))
        return torch.stack(products).sum(dim=0)


def _gradients(loss: Tensor, places: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradient of a loss in each place; zero where it has none, as a path that waits for its phase."""
    if not loss.requires_grad:
        return [torch.zeros_like(place) for place in places]
    learned = [place for place in places if place.requires_grad]  # not those in a part of the student that is frozen
    if not learned:
        return [torch.zeros_like(place) for place in places]
    with torch.autocast(loss.device.type, enabled=False):  # which would round a backward pass of float32, too
        values = iter(torch.autograd.grad(loss, learned, retain_graph=True, allow_unused=True))
    return [_or_zero(next(values) if place.requires_grad else None, place) for place in places]


def _common_type(tensors: Sequence[Tensor]) -> torch.dtype:
    """Return the type that holds the numbers of all tensors."""
    return functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))


def _or_zero(gradient: Tensor | None, place: Tensor) -> Tensor:
    return torch.zeros_like(place) if gradient is None else gradient


def _inner(one: Tensor, other: Tensor) -> Tensor:
    left = one.double()
    return (left * (left if other is one else other.double())).sum()


def cosines(products: Tensor) -> Tensor:
    """Return the cosines of ``against_task``'s ``[key, 3]``, between -1 and 1; 0 where a gradient is none."""
    inner, task, path = products.double().unbind(dim=1)
    lengths = task.sqrt() * path.sqrt()
    return torch.where(lengths > 0, inner / lengths.clamp_min(torch.finfo(torch.float64).tiny), 0.0).clamp(-1, 1)
