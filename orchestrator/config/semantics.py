"""The second look at a file: everything that it names and every value that its search tries; imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path

from distill.annotations import named_first
from distill.schema import Problem
from orchestrator.config.complete import complete
from orchestrator.config.design import Design, with_choices
from orchestrator.config.document import Document
from orchestrator.config.domain import Choice, Domain
from orchestrator.config.errors import Mistake, UserError
from orchestrator.config.experiment import Experiment
from orchestrator.config.path_sets import PATHS
from orchestrator.config.search import AGGREGATOR as AGGREGATOR_KEY
from orchestrator.config.spec_checker import SpecChecker
from orchestrator.config.structure import load_structure, structure


def load(path: str | Path, settings: Iterable[str] = ()) -> Experiment:
    """Read a file with settings of the command line, and check all of it that can be checked without data.

    Raises:
        UserError: everything that is wrong; first what concerns the structure, then what the file names.
    """
    return semantics(load_structure(path, tuple(settings)))


def semantics(experiment: Experiment) -> Experiment:
    """Check what a file names, in every branch of its search, and fill in the defaults.

    Raises:
        UserError: a name, an option, a folder or a combination is wrong; all of them at once.
    """
    mistakes: list[Mistake] = []
    checker = SpecChecker()
    for document in branches(experiment):
        try:
            branch = structure(document)
        except UserError as error:
            mistakes += error.mistakes
            continue
        mistakes += document.mistakes(checker.check(branch))
    if not mistakes:
        completed = complete(experiment)
        mistakes = experiment.document.mistakes(refusal_problems(Design(completed)))
        if not mistakes:
            return completed
    raise UserError.about(mistakes)


def branches(experiment: Experiment) -> Iterator[Document]:
    """Yield the file without its search, and once with each value that a searched key takes.

    Keys inside one another (``aggregator``, ``aggregator.alpha_distill``) are crossed; keys apart are not: what a
    specification says is right or wrong by itself.
    """
    domains = dict(experiment.search.domains) if experiment.search else {}
    document = experiment.document.without("search")
    yield document
    domains.pop(PATHS, None)
    for group in _related(domains):
        for choices in product(*(domains[key].choices for key in group)):
            yield _with(document, dict(zip(group, choices, strict=True)))


def _with(document: Document, choices: Mapping[str, Choice]) -> Document:
    try:
        return with_choices(document, choices)
    except KeyError as error:
        key = next(iter(choices))
        raise document.error([Problem(f"search.{key}", str(error.args[0]))]) from error


def _related(domains: Mapping[str, Domain]) -> list[list[str]]:
    """Return the searched keys in groups: a key and the keys inside it."""
    outermost = [key for key in domains if not any(key.startswith(f"{other}.") for other in domains)]
    return [[key for key in domains if key == outer or key.startswith(f"{outer}.")] for outer in outermost]


def refusal_problems(design: Design) -> list[Problem]:
    """Return the aggregators that take no path set, and the path sets that no aggregator takes.

    That some combinations of a grid do not exist is no mistake; that a value of it is never used is one.
    """
    if not design.experiment.paths:
        return []
    taken = design.arms()
    problems = []
    for key in (AGGREGATOR_KEY, PATHS) if taken else (AGGREGATOR_KEY,):
        used = {arm.choices[key].label for arm in taken}
        unused = {arm.choices[key].label: (arm.choices[key], reason) for arm, reason in reversed(design.refusals)}
        problems += [_unused(choice, reason) for label, (choice, reason) in unused.items() if label not in used]
    return problems


def _unused(choice: Choice, reason: str) -> Problem:
    """Return why a value is never used: under the option of an aggregator that the reason begins with."""
    options = choice.value if isinstance(choice.value, Mapping) else {}
    return (named_first(reason, options) or Problem("", reason)).under(choice.origin)
