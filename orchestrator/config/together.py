"""Values of several keys that occur only together: the arms of a file that is no full grid, pairs of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.schema import Problem, found, join, nearest
from orchestrator.config.domain import Choice
from orchestrator.config.labels import labels, snake_case
from orchestrator.config.listed import Listed
from orchestrator.config.path_sets import PATHS, parse_path_sets

NAMES = ("arms", "pairs")
"""Keys of the search under which combinations are listed; the name says to a reader what they are."""


@dataclass(frozen=True)
class Together:
    """The combinations that exist.

    Attributes:
        rows: for each combination the label of each key's value.
    """

    rows: tuple[Mapping[str, str], ...]

    def allows(self, choices: Mapping[str, Choice]) -> bool:
        """Whether some combination agrees with these choices, as far as both speak of the same keys."""
        return any(
            all(choices[key].label == label for key, label in row.items() if key in choices) for row in self.rows
        )


def parse_together(
    name: str, content: Any, *, searched: Sequence[str], path_names: Sequence[str]
) -> tuple[dict[str, Listed], Together, list[Problem]]:
    """Read ``{label: {paths: [...], aggregator: {...}}, ...}``.

    Args:
        name: the key that it stands under.
        content: what stands there.
        searched: the sections that can vary.
        path_names: the paths of the file.

    Returns:
        The domain of each key, which of their combinations exist, and the problems, relative to ``name``.
    """
    problems = _shape_problems(content, searched)
    if problems:
        return {}, Together(()), problems
    rows: dict[str, Mapping[str, Any]] = content
    domains: dict[str, Listed] = {}
    for key in next(iter(rows.values())):
        domain, wrong = _domain(name, key, {label: row[key] for label, row in rows.items()}, path_names)
        problems += wrong
        if domain is not None:
            domains[key] = domain
    if problems:
        return {}, Together(()), problems
    combinations = [
        {key: _label(domain, _in_order(row[key], key, path_names)) for key, domain in domains.items()}
        for row in rows.values()
    ]
    twice = [label for place, label in enumerate(rows) if combinations[place] in combinations[:place]]
    return domains, Together(tuple(combinations)), [Problem(label, "is the same as one above it") for label in twice]


def _shape_problems(content: Any, searched: Sequence[str]) -> list[Problem]:
    if not isinstance(content, Mapping) or not content:
        return [Problem("", f"must map labels to the keys that vary together, found {found(content)}")]
    problems = [
        Problem(
            str(label),
            f"must map keys to values, such as {{paths: [a], aggregator: {{use: Equal}}}}, found {found(row)}",
        )
        for label, row in content.items()
        if not isinstance(row, Mapping) or not row
    ]
    if problems:
        return problems
    keys = list(next(iter(content.values())))
    for label, row in content.items():
        problems += [
            Problem(
                join(str(label), key), f"'{key}' cannot vary; these can: {', '.join(searched)}.", nearest(key, searched)
            )
            for key in row
            if key.partition(".")[0] not in searched
        ]
        if set(row) != set(keys):
            problems.append(
                Problem(str(label), f"must give a value to each of {', '.join(keys)}, found {', '.join(row)}")
            )
    return problems


def _domain(
    name: str, key: str, values: Mapping[str, Any], path_names: Sequence[str]
) -> tuple[Listed | None, list[Problem]]:
    """Return the distinct values of one key, each with the place where it stands first."""
    distinct: dict[str, Any] = {}
    for label, value in values.items():
        value = _in_order(value, key, path_names)
        if value not in distinct.values():
            distinct[label] = value
    places = {label: f"search.{name}.{label}.{key}" for label in distinct}
    if key == PATHS:
        problems = []
        for label, members in distinct.items():
            _, wrong = parse_path_sets("sets", [members], path_names)
            problems += [
                Problem(_moved(problem.key, label, key), problem.message, problem.nearest) for problem in wrong
            ]
        if problems:
            return None, problems
        sets, _ = parse_path_sets("sets", list(distinct.values()), path_names)
        assert sets is not None
        chosen = zip(sets.choices, places.values(), strict=True)
        return Listed(key, tuple(Choice(choice.label, choice.value, place) for choice, place in chosen)), []
    names = labels(list(distinct.values()))
    if key == "aggregator":
        names = [snake_case(each) for each in names]
    items = zip(names, distinct.values(), places.values(), strict=True)
    return Listed(key, tuple(Choice(label, value, place) for label, value, place in items)), []


def _moved(key: str, label: str, section: str) -> str:
    """Move a problem of the one set ``0`` to where that set stands in the file."""
    return join(label, join(section, key.partition(".")[2]))


def _in_order(value: Any, key: str, path_names: Sequence[str]) -> Any:
    """Return a path set in the file's order, so that one set has one label."""
    is_set = key == PATHS and isinstance(value, list) and all(name in path_names for name in value)
    return [name for name in path_names if name in value] if is_set and len(set(value)) == len(value) else value


def _label(domain: Listed, value: Any) -> str:
    return next(choice.label for choice in domain.choices if choice.value == value)
