"""Which targets are worth storing: what it costs to ask again against what it costs to keep and to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from orchestrator.duration import duration
from orchestrator.store.group import Group
from orchestrator.store.measurement import Measurement

Mode = Literal["auto", "exact", "float16", "off"]

_MOST_FOR_ALL_SUBSETS = 10
"""Targets up to whose number every subset is tried; beyond, the smallest ones are tried together."""


@dataclass(frozen=True)
class Decision:
    """What is stored for one kind of group, and why.

    Attributes:
        stored: the paths whose targets are stored.
        reasons: by path that is not stored, why.
        stored_bytes: what all groups of this kind take together.
        asked: images for which the teacher is asked, in all runs together.
        asked_without: the same without a store.
        seconds: of asking, writing and reading, in all runs together, as estimated.
        seconds_without: the same without a store.
        row_bytes: by path, bytes of a stored target for an image.
        shared: paths whose target is the very same, kept once.
    """

    stored: tuple[str, ...]
    reasons: dict[str, str]
    stored_bytes: int
    asked: int
    asked_without: int
    seconds: float
    seconds_without: float
    row_bytes: dict[str, int]
    shared: tuple[tuple[str, ...], ...] = ()


def is_asked_once(groups: Sequence[Group]) -> bool:
    """Whether no run sees an image as another one or an earlier epoch does, so that a store has nothing to give."""
    asked = sum(use.epochs for group in groups for use in group.uses if use.paths)
    return asked <= sum(group.num_views for group in groups)


def ask_always(groups: Sequence[Group], reason: str) -> Decision:
    """Return the decision to store nothing."""
    names = sorted(frozenset[str]().union(*(group.paths for group in groups)))
    return Decision((), dict.fromkeys(names, reason), 0, 0, 0, 0.0, 0.0, {})


def decide(groups: Sequence[Group], measured: Measurement, *, mode: Mode, budget_bytes: float) -> Decision:
    """Decide for groups that differ in their data seed alone.

    ``auto`` stores the paths for which asking, writing and reading together take least time; ``exact`` and ``float16``
    store whatever can be stored. No more than the budget is stored in any case, the smallest targets first.

    Args:
        groups: that were measured together.
        measured: what asking, keeping and reading cost.
        mode: the option ``store``.
        budget_bytes: what all groups may take together.
    """
    costs = _Costs(groups, measured, half=mode == "float16")
    known = sorted((name for name in costs.row_bytes), key=lambda name: (costs.row_bytes[name], name))
    targets: dict[str, list[str]] = {}
    for name in known:
        targets.setdefault(measured.column(name), []).append(name)
    choices = [{name for target in chosen for name in target} for chosen in _candidates(list(targets.values()))]
    fitting = [chosen for chosen in choices if costs.stored_bytes(chosen) <= budget_bytes]
    best = min(fitting, key=costs.seconds) if mode == "auto" else max(fitting, key=len)
    reasons = dict(measured.refusals)
    for name in known:
        if name not in best:
            reasons[name] = _reason(name, best, costs, budget_bytes)
    return Decision(
        stored=tuple(name for name in known if name in best),
        reasons=reasons,
        stored_bytes=int(costs.stored_bytes(best)),
        asked=costs.asked(best),
        asked_without=costs.asked(()),
        seconds=costs.seconds(best),
        seconds_without=costs.seconds(()),
        row_bytes=costs.row_bytes,
        shared=tuple(tuple(names) for names in targets.values() if len(names) > 1),
    )


def _candidates(targets: Sequence[Sequence[str]]) -> Iterator[Sequence[Sequence[str]]]:
    """Yield choices of targets, each given as the paths that need it."""
    if len(targets) > _MOST_FOR_ALL_SUBSETS:
        yield from (targets[:number] for number in range(len(targets) + 1))
        return
    for number in range(len(targets) + 1):
        yield from combinations(targets, number)


def _reason(name: str, best: set[str], costs: _Costs, budget_bytes: float) -> str:
    if costs.stored_bytes(best | {name}) > budget_bytes:
        return f"would exceed run.store_gib ({budget_bytes / 2**30:g} GiB)"
    return "asking again is cheaper"


class _Costs:
    """What a choice of stored paths costs."""

    def __init__(self, groups: Sequence[Group], measured: Measurement, *, half: bool) -> None:
        self._groups = groups
        self._measured = measured
        factor = 0.5 if half else 1.0
        self.row_bytes = {name: int(size * factor) for name, size in measured.row_bytes.items()}

    def stored_bytes(self, chosen: Sequence[str] | set[str]) -> float:
        """Bytes that all groups take, the teacher's answers for the other splits included."""
        if not chosen:
            return 0
        targets = sum(group.num_views * self._kept_bytes(frozenset(chosen) & group.paths) for group in self._groups)
        answers = self._measured.answer_bytes * self._measured.num_other_rows
        return targets * self._measured.num_rows + answers

    def _kept_bytes(self, names: frozenset[str]) -> int:
        """Bytes of an image's targets, each kept once however many paths need it."""
        return sum({self._measured.column(name): self.row_bytes[name] for name in names}.values())

    def asked(self, chosen: Sequence[str] | set[str]) -> int:
        """Images of the training split for which the teacher is asked."""
        stored = frozenset(chosen)
        rows = self._measured.num_rows
        filling = sum(group.num_views for group in self._groups if stored & group.paths)
        asking = sum(use.epochs for group in self._groups for use in group.uses if use.paths - stored)
        return rows * (filling + asking)

    def seconds(self, chosen: Sequence[str] | set[str]) -> float:
        """Time of asking, writing and reading."""
        stored, measured = frozenset(chosen), self._measured
        written = sum(group.num_views * self._kept_bytes(stored & group.paths) for group in self._groups)
        read = sum(
            use.epochs * sum(self.row_bytes[name] for name in stored & use.paths)
            for group in self._groups
            for use in group.uses
        )
        disk = measured.num_rows * (written * measured.write_seconds + read * measured.read_seconds)
        return self.asked(chosen) * measured.ask_seconds + disk


def describe(decisions: Mapping[str, Decision]) -> list[str]:
    """Return the decisions as a person reads them, each kind of group under its name."""
    lines = []
    for name, decision in decisions.items():
        title = f" of {name}" if name else ""
        if decision.stored:
            sizes = ", ".join(_sizes(decision))
            lines.append(
                f"Targets{title}: stored, {size_words(decision.stored_bytes)} in all ({sizes} an image); the teacher "
                f"is asked for {decision.asked:,} training images instead of {decision.asked_without:,}, about "
                f"{duration(decision.seconds)} of work instead of {duration(decision.seconds_without)}"
            )
        else:
            lines.append(f"Targets{title}: nothing is stored")
        lines += [f"  {path} asks the teacher for every batch: {why}" for path, why in decision.reasons.items()]
    return lines


def _sizes(decision: Decision) -> Iterator[str]:
    """Yield the stored paths with the bytes of their targets; those of one target together."""
    together = {name: names for names in decision.shared for name in names}
    for names in dict.fromkeys(together.get(name, (name,)) for name in decision.stored):
        yield f"{'+'.join(names)} {size_words(decision.row_bytes[names[0]])}"


def size_words(size_bytes: float) -> str:
    """Return a size as people write it: ``40 B``, ``3.1 kB``, ``310 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} {unit}" if size_bytes >= 100 or unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
