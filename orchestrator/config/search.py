"""The ``search`` section: which keys vary, and over what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.annotations import fit
from distill.schema import Fitted, Problem, found, nearest
from orchestrator.config.domain import Choice, Domain
from orchestrator.config.interval import Interval
from orchestrator.config.labels import labels, snake_case
from orchestrator.config.listed import Listed
from orchestrator.config.path_sets import PATH_KINDS, PATHS, parse_path_sets, places
from orchestrator.config.together import NAMES, Together, parse_together

SEARCHED = ("seed", "data_seed", "task", "data", "teacher", "student", "paths", "aggregator", "train")
"""The sections whose keys a search can vary."""
COMBINED = tuple(section for section in SEARCHED if section != "seed")
"""Those that can be listed in combinations: every arm runs on all seeds."""
AGGREGATOR, SEED = "aggregator", "seed"

DOMAIN_KINDS = ("grid", "choice", "uniform", "loguniform", *PATH_KINDS)

Parsed = tuple[Domain | None, list[Problem]]


@dataclass(frozen=True)
class Search:
    """What varies.

    Attributes:
        domains: by the key that they vary.
        written: the section as it stands in the file.
        together: which combinations of values exist, where the file lists them.
    """

    domains: Mapping[str, Domain]
    written: Mapping[str, Any]
    together: tuple[Together, ...] = ()


def parse_search(written: Any, path_names: Sequence[str]) -> Fitted:
    """Read the section.

    Args:
        written: dotted keys, each with one domain, or with ``null``, which takes it out (on the command line).
        path_names: the paths of the file.

    Returns:
        A :class:`Search`, ``None`` where nothing is left, and the problems, their keys relative to the section.
    """
    if not isinstance(written, Mapping) or not written:
        return None, [Problem("", f"must map keys to what they vary over, found {found(written)}")]
    kept = {key: value for key, value in written.items() if value is not None}
    domains: dict[str, Domain] = {}
    problems: list[Problem] = []
    together: list[Together] = []
    for key, value in kept.items():
        if key in NAMES:
            joint, rows, wrong = parse_together(key, value, searched=COMBINED, path_names=path_names)
            wrong += [Problem("", f"'{other}' varies by itself already") for other in joint if other in kept]
            problems += [problem.under(key) for problem in wrong]
            domains |= joint
            together.append(rows)
            continue
        domain, wrong = _parse(key, value, path_names)
        problems += [problem.under(key) for problem in wrong]
        if domain is not None:
            domains[key] = domain
    return (Search(domains, kept, tuple(together)) if kept else None), problems


def _parse(key: str, value: Any, path_names: Sequence[str]) -> Parsed:
    section, _, rest = key.partition(".")
    if section not in SEARCHED:
        message = f"'{section}' cannot vary; these can: {', '.join(SEARCHED)}; combinations stand under arms or pairs."
        return None, [Problem("", message, nearest(section, (*SEARCHED, *NAMES)))]
    name = rest.partition(".")[0]
    if section == PATHS and name and name not in path_names:
        return None, [Problem("", f"there is no path '{name}'.", nearest(name, path_names))]
    kinds: Mapping[str, Any] = PATH_KINDS if key == PATHS else {"grid": KINDS["grid"]} if key == SEED else KINDS
    if not isinstance(value, Mapping) or len(value) != 1:
        return None, [Problem("", f"must have exactly one of {_shapes(kinds)}, found {found(value)}")]
    [(kind, content)] = value.items()
    if kind not in kinds and isinstance(content, Mapping):
        return None, [Problem("", f"write the searched key in one, with dots: '{key}.{kind}: {{grid: [...]}}'")]
    if kind not in kinds:
        return None, [Problem(kind, f"'{key}' takes {_shapes(kinds)}, found '{kind}'.", nearest(kind, kinds))]
    parsed: Parsed = parse_path_sets(kind, content, path_names) if key == PATHS else KINDS[kind](key, content)
    return parsed[0], [problem.under(kind) for problem in parsed[1]]


def _shapes(kinds: Mapping[str, Any]) -> str:
    return " or ".join(f"{{{kind}: ...}}" for kind in kinds)


def _listed(key: str, content: Any, kind: str, is_sampled: bool) -> Parsed:
    """Read a list of values, or a mapping of labels to values."""
    if not isinstance(content, list | Mapping) or not content:
        message = f"must be a list of values, or a mapping of labels to values, found {found(content)}"
        return None, [Problem("", message)]
    if key == SEED and not all(type(value) is int for value in _values(content)):
        return None, [Problem("", f"seeds must be whole numbers, found {_values(content)}")]
    values = _values(content)
    twice = [number for number, value in enumerate(values) if value in values[:number]]
    if twice:
        return None, [Problem(places(content)[number], "stands twice in this list") for number in twice]
    names = list(content) if isinstance(content, Mapping) else labels(values)
    if key == AGGREGATOR:
        names = [snake_case(name) for name in names]
    choices = [
        Choice(name, value, f"search.{key}.{kind}.{place}")
        for name, value, place in zip(names, values, places(content), strict=True)
    ]
    return Listed(key, tuple(choices), is_sampled), []


def _values(content: Any) -> list[Any]:
    return list(content.values()) if isinstance(content, Mapping) else list(content)


def _interval(key: str, content: Any, kind: str, is_logarithmic: bool) -> Parsed:
    bounds, problems = fit(content, tuple[float, float])
    if problems:
        return None, problems
    low, high = bounds
    if not low < high:
        return None, [Problem("", f"must be [low, high] with low below high, found {content}")]
    if is_logarithmic and low <= 0:
        return None, [Problem("0", f"must be above 0 to have a logarithm, found {low:g}")]
    return Interval(key, low, high, is_logarithmic, f"search.{key}.{kind}"), []


KINDS: Mapping[str, Callable[[str, Any], Parsed]] = {
    "grid": lambda key, content: _listed(key, content, "grid", False),
    "choice": lambda key, content: _listed(key, content, "choice", True),
    "uniform": lambda key, content: _interval(key, content, "uniform", False),
    "loguniform": lambda key, content: _interval(key, content, "loguniform", True),
}
"""The kinds of domain; ``grid`` tries all values, the others are sampled."""
