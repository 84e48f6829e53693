"""The runs of a sweep: arms times seeds, and the student alone beside them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

from orchestrator.config.arm import Arm
from orchestrator.config.arm_proposer import ArmProposer
from orchestrator.config.complete import complete
from orchestrator.config.document import Document
from orchestrator.config.domain import Choice, Domain
from orchestrator.config.experiment import Experiment
from orchestrator.config.labels import labels, snake_case
from orchestrator.config.listed import Listed
from orchestrator.config.path_sets import PATHS, set_label
from orchestrator.config.planned_run import PlannedRun
from orchestrator.config.refusal import refusal
from orchestrator.config.run_name import run_name
from orchestrator.config.search import AGGREGATOR, SEED
from orchestrator.config.structure import structure

Refuses = Callable[[Mapping[str, Any], Mapping[str, Any]], str]
"""Says why an aggregator (its specification) cannot take some paths (theirs, by name); empty: it can."""

FOR_STUDENT = ("student", "data", "data_seed", "task", "train")
"""The sections that a student trained alone depends on."""
GRANULARITY = "granularity"
"""The option of an aggregator that may map groups to lists of paths."""
ALONE: Mapping[str, Any] = {"use": "Equal"}
"""The aggregator of a student trained alone, which has nothing to aggregate."""


class Design:
    """What a file's search amounts to.

    A grid is crossed with path sets, aggregators and all other grids; every arm runs on all seeds. The student alone
    is added for each seed and each grid value that concerns it. With ``run.num_arms``, arms are proposed instead, the
    grids being choices among others. An aggregator that refuses a path set, such as Single a set of two, is left out
    with that set, and ``notes`` say so. An option of an aggregator that maps names of paths, or of layers, to values
    (the weights of Fixed) is cut down to the paths of the set; so are the groups of its ``granularity``.

    Args:
        experiment: the resolved file.
        refuses: says which aggregator cannot take which paths; default: the aggregators themselves.
    """

    def __init__(self, experiment: Experiment, refuses: Refuses | None = None) -> None:
        self.experiment = experiment
        self._refuses = refuses or partial(refusal, modules=experiment.modules)
        domains = dict(experiment.search.domains) if experiment.search else {}
        seeds = domains.pop(SEED, None)
        self.seeds: tuple[int, ...] = tuple(choice.value for choice in seeds.choices) if seeds else (experiment.seed,)
        names = list(experiment.paths)
        own_label = snake_case(labels([experiment.aggregator])[0])
        self.domains: dict[str, Domain] = {
            AGGREGATOR: Listed(AGGREGATOR, (Choice(own_label, dict(experiment.aggregator), AGGREGATOR),)),
            PATHS: Listed(PATHS, (Choice(set_label(names), names, PATHS),)),
        } | domains
        self._together = experiment.search.together if experiment.search else ()
        self.is_sampled = experiment.run.num_arms is not None and experiment.search is not None
        self._refused: dict[str, tuple[Arm, str]] = {}

    def arms(self) -> list[Arm]:
        """Return all arms of the grids, without those that an aggregator refuses."""
        grids = {key: domain.choices for key, domain in self.domains.items() if not domain.is_sampled}
        crossed = (Arm(choices) for choices in self._crossed(grids))
        distinct = {arm.name: arm for arm in crossed}
        return [arm for arm in distinct.values() if not self.refusal(arm)]

    def arm(self, assignment: Mapping[str, Any]) -> Arm:
        """Return the arm that :attr:`PlannedRun.assignment` records.

        Raises:
            ValueError: a key has no such value.
        """
        return Arm({key: domain.at(assignment[key]) for key, domain in self.domains.items()})

    def assignment(self, arm: Arm) -> dict[str, Any]:
        """Return an arm as plain data."""
        return {key: domain.assigned(arm.choices[key]) for key, domain in self.domains.items() if key in arm.choices}

    def refusal(self, arm: Arm) -> str:
        """Say why the arm's aggregator cannot take its paths; empty: it can."""
        if not arm.paths:
            return ""
        if not all(together.allows(arm.choices) for together in self._together):
            return "the file does not list this combination"
        data = self._document(arm, self.seeds[0]).data
        reason = self._refuses(data[AGGREGATOR], data[PATHS])
        if reason:
            self._refused[arm.name] = (arm, reason)
        return reason

    def runs(self, arm: Arm) -> list[PlannedRun]:
        """Return an arm's runs, one a seed."""
        return [self._planned(arm, seed, self.assignment(arm)) for seed in self.seeds]

    def controls(self) -> list[PlannedRun]:
        """Return the student alone: one run for each seed and each grid value that concerns it."""
        if self.experiment.search is None or not self.experiment.paths:
            return []
        grids = {
            key: domain.choices
            for key, domain in self.domains.items()
            if key.partition(".")[0] in FOR_STUDENT and not domain.is_sampled
        }
        nothing = {AGGREGATOR: Choice("none", dict(ALONE), AGGREGATOR), PATHS: Choice("", [], PATHS)}
        alone = [Arm(nothing | choices) for choices in self._crossed(grids)]
        return [self._planned(arm, seed, {}) for arm in alone for seed in self.seeds]

    def planned(self) -> list[PlannedRun]:
        """Return all runs that are known beforehand: the controls, and unless arms are proposed, those of all arms."""
        arms = [] if self.is_sampled else self.arms()
        return [*self.controls(), *(run for arm in arms for run in self.runs(arm))]

    def proposer(self) -> ArmProposer:
        """Return what proposes the arms: all of the grid, or as many as ``run.num_arms`` says.

        Raises:
            UserError: the searcher's package is not installed.
        """
        from orchestrator.config.grid_proposer import GridProposer
        from orchestrator.config.optuna_proposer import OptunaProposer
        from orchestrator.config.random_proposer import RandomProposer

        run = self.experiment.run
        if not self.is_sampled or run.num_arms is None:
            return GridProposer(self.arms())
        if run.searcher == "optuna":
            return OptunaProposer(self, num_arms=run.num_arms, seed=self.experiment.seed, mode=run.ranking.mode)
        return RandomProposer(self, num_arms=run.num_arms, seed=self.experiment.seed)

    @property
    def refusals(self) -> list[tuple[Arm, str]]:
        """The arms that :meth:`arms` and the proposer left out so far, each with the reason."""
        return list(self._refused.values())

    @property
    def notes(self) -> list[str]:
        """What was left out and why; each pair of aggregator and path set once."""
        pairs = {f"{arm.choices[AGGREGATOR].label} with {arm.choices[PATHS].label}": why for arm, why in self.refusals}
        return [f"left out {pair}: {reason}" for pair, reason in pairs.items()]

    def _crossed(self, grids: Mapping[str, Sequence[Choice]]) -> Iterator[dict[str, Choice]]:
        """Give all combinations of values, of those that the file lists together only the listed ones."""
        for values in product(*grids.values()):
            choices = dict(zip(grids, values, strict=True))
            if all(together.allows(choices) for together in self._together):
                yield choices

    def _planned(self, arm: Arm, seed: int, assignment: dict[str, Any]) -> PlannedRun:
        experiment = complete(structure(self._document(arm, seed)))
        alone = not arm.paths
        return PlannedRun(
            key=experiment.config_hash[:10],
            name=run_name(arm, seed, tuple(self.experiment.paths)),
            arm=arm.name,
            aggregator="none" if alone else arm.choices[AGGREGATOR].label,
            paths=tuple(sorted(arm.paths)),
            seed=seed,
            kind="student" if alone else "run",
            context=arm.context,
            config=experiment.config,
            config_hash=experiment.config_hash,
            assignment=assignment,
        )

    def _document(self, arm: Arm, seed: int) -> Document:
        """Return the file of one run: the searched keys at the arm's values, and only the arm's paths."""
        document = self.experiment.document.without("search").with_value(SEED, seed, origin=SEED)
        others = {key: choice for key, choice in arm.choices.items() if key != PATHS}
        first = {key: choice for key, choice in others.items() if key.partition(".")[0] == "teacher"}
        document = self._keep_teacher_training(with_choices(document, first))
        document = with_choices(document, {key: choice for key, choice in others.items() if key not in first})
        written = document.data.get(PATHS) or {}
        document = document.with_value(PATHS, {name: written[name] for name in arm.paths}, origin=PATHS)
        aggregator = {option: self._only(arm.paths, value) for option, value in document.data[AGGREGATOR].items()}
        if isinstance(aggregator.get(GRANULARITY), Mapping):
            aggregator[GRANULARITY] = self._groups(arm.paths, document.data[AGGREGATOR][GRANULARITY])
        return document.with_value(AGGREGATOR, aggregator, origin=arm.choices[AGGREGATOR].origin)

    def _keep_teacher_training(self, document: Document) -> Document:
        """Fix how the teacher is trained before ``train`` varies: that search is about the student."""
        teacher = document.data.get("teacher")
        given = teacher and not teacher.get("train") and (teacher.get("weights") or teacher.get("checkpoint"))
        if not teacher or given:
            return document
        training = {**asdict(self.experiment.train), **(teacher.get("train") or {})}
        return document.with_value("teacher.train", training, origin="teacher.train")

    def _only(self, paths: Iterable[str], value: Any) -> Any:
        """Cut a mapping whose keys are paths of the file, or layers of theirs, down to ``paths``.

        Anything else is returned as it is.
        """
        if not isinstance(value, Mapping) or not value:
            return value
        owners = {name: name.partition(".")[0] for name in value}
        if not set(owners.values()) <= set(self.experiment.paths):
            return value
        return {name: value[name] for path in paths for name, owner in owners.items() if owner == path}

    def _groups(self, paths: Collection[str], groups: Mapping[str, Any]) -> dict[str, Any]:
        """Cut the groups of an aggregator down to ``paths``; a group without any is none.

        What is no path of the file stays, for the aggregator to refuse.
        """
        absent = set(self.experiment.paths) - set(paths)
        left = {name: [path for path in members if path not in absent] for name, members in groups.items()}
        return {name: members for name, members in left.items() if members or not groups[name]}


def with_choices(document: Document, choices: Mapping[str, Choice]) -> Document:
    """Return the document with searched keys at their values, whole sections before keys inside them."""
    for key in sorted(choices, key=lambda key: key.count(".")):
        document = document.with_value(key, choices[key].value, origin=choices[key].origin)
    return document
