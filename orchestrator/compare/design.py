"""Which arms of a sweep can be compared with which, before any number is known."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.compare.additive_model import AdditiveModel
from orchestrator.compare.arm import Arm
from orchestrator.compare.planned import Planned

# The aggregator that the others are measured against.
EQUAL = "equal"
NOT_OF_STUDENT = frozenset({"paths", "aggregator", "teacher"})


class Design:
    """The arms and seeds of a sweep and the contrasts between its arms.

    An arm is measured against the student alone of the same context (learning rate, student, ...). Where a context has
    no student alone of its own, as with sampled values, the student alone whose context agrees in most keys stands in.
    Arms with the same student alone form a *block*; seeds have effects of their own in every block, since a seed is
    another draw for another student.

    Args:
        runs: planned or ended runs, one for each arm and seed.
    """

    def __init__(self, runs: Sequence[Planned]) -> None:
        arms: dict[str, Arm] = {}
        for run in runs:
            arm = Arm(run.arm, run.aggregator, run.paths, dict(run.context), is_alone=run.kind == "student")
            arms.setdefault(run.arm, arm)
        self.arms = tuple(arms.values())
        self.index = {arm.name: position for position, arm in enumerate(self.arms)}
        self.arm_of_cell: NDArray[np.int64] = np.array([self.index[run.arm] for run in runs], dtype=np.int64)
        self.seed_of_cell: NDArray[np.int64] = np.array([run.seed for run in runs], dtype=np.int64)
        self.seeds = tuple(sorted({run.seed for run in runs}))
        self.paths = tuple(sorted({path for arm in self.arms for path in arm.paths}))
        self.alone = tuple(self._find_alone(arm) for arm in self.arms)
        self._models: dict[bytes, AdditiveModel] = {}

    @cached_property
    def block_of_arm(self) -> NDArray[np.int64]:
        """``[arm]``: number of the block that an arm belongs to."""
        names: dict[str, int] = {}
        keys = [
            f"alone {alone}"
            if alone is not None
            else f"context {json.dumps(dict(arm.context), sort_keys=True, default=str)}"
            for arm, alone in zip(self.arms, self.alone, strict=True)
        ]
        return np.array([names.setdefault(key, len(names)) for key in keys], dtype=np.int64)

    @cached_property
    def seed_effect_of_cell(self) -> NDArray[np.int64]:
        """``[cell]``: number of the seed effect of a run: one for each block and seed."""
        numbers: dict[tuple[int, int], int] = {}
        blocks = self.block_of_arm[self.arm_of_cell] if self.arms else self.arm_of_cell
        pairs = zip(blocks.tolist(), self.seed_of_cell.tolist(), strict=True)
        return np.array([numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=np.int64)

    def model(self, cells: NDArray[np.bool_] | None = None) -> AdditiveModel:
        """Return the model arm + seed over all runs, or over the runs marked in ``cells`` (``[cell]``)."""
        mask = np.ones(len(self.arm_of_cell), dtype=bool) if cells is None else cells
        key = mask.tobytes()
        if key not in self._models:
            self._models[key] = AdditiveModel(
                self.arm_of_cell[mask], self.seed_effect_of_cell[mask], num_arms=len(self.arms)
            )
        return self._models[key]

    def equal(self, arm: Arm) -> int | None:
        """Return the arm that combines the same paths with equal weights, or None."""
        if arm.is_alone or arm.aggregator.casefold() == EQUAL:
            return None
        context = _without(arm.context, "aggregator.")
        for position, other in enumerate(self.arms):
            same = other.paths == arm.paths and _without(other.context, "aggregator.") == context
            if same and not other.is_alone and other.aggregator.casefold() == EQUAL:
                return position
        return None

    def pairs(self, path: str) -> list[tuple[int, int]]:
        """Return all pairs (with, without) of arms that differ in ``path`` only.

        Both have the same aggregator and context; the student alone of the same context is the empty set of every
        aggregator. A student alone that only stands in, at another learning rate say, makes no pair.
        """
        found = []
        for position, arm in enumerate(self.arms):
            partner = self._without_path(arm, path) if path in arm.paths else None
            if partner is not None:
                found.append((position, partner))
        return found

    def add_one(self, path: str) -> list[tuple[int, int]]:
        """Return the pairs that add ``path`` to the student alone."""
        return [pair for pair in self.pairs(path) if self.arms[pair[0]].paths == (path,)]

    def leave_one_out(self, path: str) -> list[tuple[int, int]]:
        """Return the pairs that take ``path`` away from the set of all paths."""
        return [pair for pair in self.pairs(path) if self.arms[pair[0]].paths == self.paths]

    def shapley(self, path: str) -> dict[tuple[int, int], float]:
        """Return the pairs of ``path``, each with its share of the exact Shapley value; the shares sum to one.

        Of ``n`` paths, the pair that adds ``path`` to a set of ``s`` others has the share ``s! (n - 1 - s)! / n!``:
        that of the orders of adding all paths in which these others come first (Shapley 1953). It takes all subsets,
        of one aggregator and context; the mean over those that have them. Empty where none has.
        """
        families: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for pair in self.pairs(path):
            arm = self.arms[pair[0]]
            families[json.dumps([arm.aggregator, dict(arm.context)], sort_keys=True, default=str)].append(pair)
        num_others = len(self.paths) - 1
        complete = [pairs for pairs in families.values() if len(pairs) == 2**num_others]
        shares = {}
        for pair in (pair for pairs in complete for pair in pairs):
            before = len(self.arms[pair[1]].paths)
            orders = math.comb(num_others, before) * (num_others + 1)
            shares[pair] = 1 / (orders * len(complete))
        return shares

    def contrast(self, pairs: Sequence[tuple[int, int]], shares: Sequence[float] | None = None) -> NDArray[np.float64]:
        """Return the mean over ``pairs`` of first minus second as weights of the arms, ``[arm]``.

        Args:
            pairs: positions of arms.
            shares: how much each pair counts; alike where not given.
        """
        weights = np.zeros(len(self.arms))
        for (first, second), share in zip(pairs, shares or [1 / len(pairs)] * len(pairs), strict=True):
            weights[first] += share
            weights[second] -= share
        return weights

    def why_undecidable(self, path: str) -> str | None:
        """Return why no effect of ``path`` can be told, or None where a pair of arms differs in it only."""
        if self.pairs(path):
            return None
        sets = [arm.paths for arm in self.arms if not arm.is_alone]
        if sets and all(path in names for names in sets):
            return "it is in every path set"
        return "no two arms differ in it alone"

    def has_own_alone(self, position: int) -> bool:
        """Return whether an arm's student alone agrees with it in all that concerns a student alone."""
        alone = self.alone[position]
        return alone is not None and self.arms[alone].context == _of_student(self.arms[position].context)

    def _find_alone(self, arm: Arm) -> int | None:
        candidates = [position for position, other in enumerate(self.arms) if other.is_alone]
        within = [position for position in candidates if self.arms[position].context.items() <= arm.context.items()]
        if within:
            return max(within, key=lambda position: len(self.arms[position].context))
        return candidates[0] if len(candidates) == 1 else None

    def _without_path(self, arm: Arm, path: str) -> int | None:
        rest = tuple(name for name in arm.paths if name != path)
        if not rest:
            position = self.index[arm.name]
            return self.alone[position] if self.has_own_alone(position) else None
        context = _without(arm.context, f"paths.{path}.")
        for position, other in enumerate(self.arms):
            if other.aggregator == arm.aggregator and other.paths == rest and other.context == context:
                return position
        return None


def _of_student(context: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that a student alone has: options of paths, aggregator and teacher mean nothing to it."""
    return {key: value for key, value in context.items() if key.partition(".")[0] not in NOT_OF_STUDENT}


def _without(context: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {key: value for key, value in context.items() if not key.startswith(prefix)}
