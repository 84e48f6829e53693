"""One path after another."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Unpack

import torch
from torch import Tensor

from distill.aggregators.base import Aggregate, Aggregator, Common, Losses, weighted_sum
from distill.aggregators.names import check_names
from distill.options import finite


class Order(Aggregator):
    """Cuts the training into parts, one for each path, and lets a path count in its own part alone.

    With the parts' lengths in proportion to ``share_i``, in the given order, and ``b_i`` where part ``i`` begins::

        weight_i = alpha_distill where b_i <= progress < b_(i + 1), else 0        keep: where b_i <= progress
        total    = L_task + sum of weight_i * L_i

    The last part lasts to the end. A path whose part it isn't is computed and recorded nonetheless, and its adapter
    gets a gradient of zero, which weight decay and momentum do not notice. All ranks agree by construction. To bring
    single paths in and out at times of their own, give them a ``schedule``. Costs what all paths together do in every
    part, and nothing besides: no further pass, two numbers a path, no all-reduce.

    Source: ours; stage-wise distillation, hints first and soft targets after, is that of FitNets (Romero et al. 2015,
    arXiv:1412.6550).

    Args:
        order: the names of all paths, first to last; by default as the paths are given.
        shares: how long each path's part is in proportion to the others, above 0, by name; alike by default.
        keep: whether a path goes on counting after its part.
        alpha_distill: the weight of a path that counts, at least 0.

    Raises:
        ValueError: an option is out of bounds, or ``order`` names a path twice; at ``connect``: ``order`` or ``shares``
            leave a path out, or name what is none.
    """

    _begins: Tensor  # [key]: progress at which the path's part begins
    _ends: Tensor  # [key]

    def __init__(
        self,
        order: Sequence[str] | None = None,
        shares: Mapping[str, float] | None = None,
        keep: bool = False,
        alpha_distill: float = 1.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(**common)
        self.order = None if order is None else tuple(order)
        repeated = sorted({name for name in self.order or () if (self.order or ()).count(name) > 1})
        if repeated:
            raise ValueError(f"order must name every path once, found several times: {', '.join(repeated)}")
        self.shares = (
            None
            if shares is None
            else {name: finite(f"shares.{name}", share, above=0) for name, share in shares.items()}
        )
        self.keep = keep
        self.alpha_distill = finite("alpha_distill", alpha_distill, at_least=0)

    def allocate(self, num_keys: int) -> None:
        order = self.keys if self.order is None else self.order
        shares = dict.fromkeys(self.keys, 1.0) if self.shares is None else self.shares
        check_names("order", "place", order, self.keys, kind=self.key_kind)
        check_names("shares", "share", shares, self.keys, kind=self.key_kind)
        sums = list(itertools.accumulate((shares[name] for name in order), initial=0.0))
        edges = [each / sums[-1] for each in sums[:-1]] + [torch.inf]
        places = [order.index(key) for key in self.keys]
        # Not persistent: options, not something learned.
        self.register_buffer("_begins", torch.tensor([edges[place] for place in places]), persistent=False)
        ends = [torch.inf if self.keep else edges[place + 1] for place in places]
        self.register_buffer("_ends", torch.tensor(ends), persistent=False)

    def forward(self, losses: Losses) -> Aggregate:
        # In float32, as the edges were rounded: a part begins with the step that stands exactly on its edge.
        done = torch.as_tensor(losses.progress, dtype=torch.float32, device=losses.paths.device)
        counts = (self._begins <= done) & (done < self._ends)
        return weighted_sum(losses, self.alpha_distill * counts.to(losses.paths))
