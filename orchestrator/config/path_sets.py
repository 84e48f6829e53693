"""Which paths learn together: the sets that a sweep compares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from distill.schema import Problem, found, join, nearest
from orchestrator.config.domain import Choice
from orchestrator.config.listed import Listed

PATHS = "paths"


def places(content: Any) -> list[str]:
    """Return the keys of a mapping, or the numbers of a list's items."""
    return list(content) if isinstance(content, Mapping) else [str(number) for number in range(len(content))]


def parse_path_sets(kind: str, content: Any, names: Sequence[str]) -> tuple[Listed | None, list[Problem]]:
    """Read path sets: given, or made by rule from all paths of the file."""
    sets, problems = PATH_KINDS[kind](content, names)
    if problems:
        return None, problems
    origins = places(content) if kind == "sets" else [""] * len(sets)
    choices = [
        Choice(label, list(members), join(f"search.{PATHS}.{kind}", place))
        for (label, members), place in zip(sets.items(), origins, strict=True)
    ]
    return Listed(PATHS, tuple(choices)), []


PathSets = tuple[dict[str, tuple[str, ...]], list[Problem]]


def set_label(members: Sequence[str]) -> str:
    """Return the name of a path set: its paths, joined."""
    return "+".join(members)


def _given_sets(content: Any, names: Sequence[str]) -> PathSets:
    if not isinstance(content, list | Mapping) or not content:
        return {}, [Problem("", f"must be a list of path sets, such as [[a], [a, b]], found {found(content)}")]
    sets: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    written = content.items() if isinstance(content, Mapping) else [("", members) for members in content]
    for place, (label, members) in zip(places(content), written, strict=True):
        wrong = _wrong_set(members, names)
        problems += [problem.under(place) for problem in wrong]
        if wrong:
            continue
        ordered = tuple(name for name in names if name in members)
        if ordered in sets.values():
            problems.append(Problem(place, f"the set {set_label(ordered)} stands twice"))
        sets[label or set_label(ordered)] = ordered
    return sets, problems


def _wrong_set(members: Any, names: Sequence[str]) -> list[Problem]:
    if not isinstance(members, list) or not all(isinstance(name, str) for name in members):
        example = names[0] if names else "a"
        return [Problem("", f"must be a list of path names, such as [{example}], found {found(members)}")]
    if not members:
        return [Problem("", "is empty; the student alone is always run beside the sets, so leave it out")]
    known = ", ".join(names) or "none"
    wrong = [
        Problem(str(number), f"there is no path '{name}'; the file has {known}.", nearest(name, names))
        for number, name in enumerate(members)
        if name not in names
    ]
    repeated = [name for name, count in Counter(members).items() if count > 1]
    return wrong + [Problem("", f"'{name}' stands twice in this set") for name in repeated]


def _subsets(content: Any, names: Sequence[str]) -> PathSets:
    if content != "all" and (type(content) is not int or content < 1):
        return {}, [Problem("", f"must be 'all' or the largest number of paths in a set, found {found(content)}")]
    largest = len(names) if content == "all" else min(content, len(names))
    return _made(combination for size in range(1, largest + 1) for combination in combinations(names, size)), []


def _design(content: Any, names: Sequence[str]) -> PathSets:
    singles: list[tuple[str, ...]] = [(name,) for name in names]
    others: list[tuple[str, ...]] = [tuple(kept for kept in names if kept != name) for name in names]
    designs = {"one-at-a-time": singles, "leave-one-out": [tuple(names), *others]}
    if content not in designs:
        shown = " or ".join(repr(name) for name in designs)
        return {}, [Problem("", f"must be {shown}, found {found(content)}.", nearest(str(content), designs))]
    return _made(members for members in designs[content] if members), []


def _made(sets: Iterable[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {set_label(members): tuple(members) for members in sets}


PATH_KINDS: Mapping[str, Callable[[Any, Sequence[str]], PathSets]] = {
    "sets": _given_sets,
    "subsets": _subsets,
    "design": _design,
}
"""The ways to write path sets."""
