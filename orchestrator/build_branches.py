"""All pairs of models of a search, built without a computation, and connected by their paths."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.aggregators import Aggregator
from distill.annotations import named_first, rejection
from distill.backbone_weights import find_backbone_weights
from distill.build import build
from distill.data.base import Dataset
from distill.initial_weights import fetch
from distill.paths import Path
from distill.schema import Problem
from distill.slots import AGGREGATOR, DATASET, PATH, TASK
from distill.taps import Probe, is_output
from distill.tasks import Task
from orchestrator.assemble import assemble_model, draw_model, sketch_model
from orchestrator.branch import Branch, ConnectedPath, Connection
from orchestrator.config.complete import complete
from orchestrator.config.design import Design, with_choices
from orchestrator.config.document import Document
from orchestrator.config.errors import Mistake, UserError
from orchestrator.config.experiment import Experiment, canonical_json
from orchestrator.config.labels import labels
from orchestrator.config.semantics import branches
from orchestrator.config.structure import structure
from orchestrator.store import expected_runs

SAMPLE_SIZE = 2
MODEL_SECTIONS = ("data", "task", "student", "teacher")
"""The sections that decide what the taps of a run look like."""


def build_branches(experiment: Experiment) -> list[Branch]:
    """Build each distinct pair of models of a search, and connect every path in every variant between them.

    Models live on the meta device, where they take no memory and no time; those that start from weights or a
    checkpoint are loaded once, which shows whether they can be.

    Args:
        experiment: a file that :func:`orchestrator.config.semantics.semantics` has passed.

    Raises:
        UserError: shapes cannot meet, a tap is missing, weights cannot be loaded, or an aggregator of weights by layer
            does not take the layers; all such mistakes at once.
    """
    builder = _Builder()
    mistakes: list[Mistake] = []
    built: dict[str, Branch] = {}
    for document in _model_documents(experiment):
        branch, problems = builder.build(complete(structure(document)))
        mistakes += document.mistakes(problems)
        built.setdefault(canonical_json(branch.plain()), branch)
    for document in _path_documents(experiment):
        _, problems = builder.build(complete(structure(document)))
        mistakes += document.mistakes(problems)
    if not mistakes:
        mistakes = experiment.document.mistakes(_refused_layers(experiment, builder))
    if mistakes:
        raise UserError.about(mistakes)
    return list(built.values())


def _model_documents(experiment: Experiment) -> Iterator[Document]:
    """Yield the file with every combination of searched models and data that the file allows."""
    domains = experiment.search.domains if experiment.search else {}
    together = experiment.search.together if experiment.search else ()
    keys = [key for key in domains if key.partition(".")[0] in MODEL_SECTIONS]
    document = experiment.document.without("search")
    for values in product(*(domains[key].choices for key in keys)):
        choices = dict(zip(keys, values, strict=True))
        if all(listed.allows(choices) for listed in together):
            yield with_choices(document, choices)


def _path_documents(experiment: Experiment) -> Iterator[Document]:
    """Yield the file with every searched option of a path."""
    domains = experiment.search.domains if experiment.search else {}
    document = experiment.document.without("search")
    for key, domain in domains.items():
        if key.startswith("paths."):
            for choice in domain.choices:
                yield with_choices(document, {key: choice})


def _refused_layers(experiment: Experiment, builder: _Builder) -> list[Problem]:
    """Connect what gives each layer a weight: :func:`orchestrator.config.refusal.refusal` knows no layers yet."""
    if not any(_weighs_layers(structure(document)) for document in branches(experiment)):
        return []
    design = Design(experiment)
    seen: set[str] = set()
    problems: list[Problem] = []
    for run in expected_runs(design):
        spec = run.config["aggregator"]
        key = canonical_json([run.config[section] for section in (*MODEL_SECTIONS, "paths", "aggregator")])
        if run.kind == "student" or key in seen:
            continue
        seen.add(key)
        resolved = structure(Document(experiment.document.path, run.config))
        if not _weighs_layers(resolved):
            continue
        branch, wrong = builder.build(resolved)
        if wrong:
            problems += wrong
            continue
        try:
            aggregator: Aggregator = build(spec, AGGREGATOR, modules=experiment.modules)
            aggregator.connect({path.name: path.layers for path in branch.paths})
        except ValueError as error:
            origin = design.arm(run.assignment).choices["aggregator"].origin
            problem = named_first(str(error), spec) or Problem("", str(error))
            problems.append(problem.under(origin))
    return problems


def _weighs_layers(experiment: Experiment) -> bool:
    aggregator: Aggregator = build(experiment.aggregator, AGGREGATOR, modules=experiment.modules)
    return aggregator.key_kind == "layer"


class _Builder:
    """Builds branches; each data set is built once, each model built and probed once."""

    def __init__(self) -> None:
        self._datasets: dict[str, Dataset] = {}
        self._probed: dict[str, tuple[Probe | None, int, list[Problem], list[str]]] = {}

    def build(self, experiment: Experiment) -> tuple[Branch, list[Problem]]:
        modules = experiment.modules
        config = experiment.config
        dataset = self._dataset(experiment.data, modules)
        task: Task = build(experiment.task, TASK, modules=modules)
        student, num_student, problems, messages = self._probe("student", config, dataset, task, modules)
        teacher, num_teacher, more, said = (
            self._probe("teacher", config, dataset, task, modules)
            if config["teacher"] is not None
            else (None, 0, [], [])
        )
        problems = [*problems, *more]
        paths = []
        if student is not None and teacher is not None:
            for name, spec in experiment.paths.items():
                path, wrong = _connect(name, spec, student, teacher, modules)
                paths += [path] if path else []
                problems += wrong
        branch = Branch(
            data=labels([experiment.data])[0],
            image_shape=dataset.image_shape,
            num_classes=dataset.num_classes,
            student=model_label(config["student"]),
            student_parameters=num_student,
            teacher=None if config["teacher"] is None else model_label(config["teacher"]),
            teacher_parameters=None if config["teacher"] is None else num_teacher,
            paths=tuple(paths),
            messages=(*messages, *said),
        )
        return branch, problems

    def _dataset(self, spec: Mapping[str, Any], modules: Sequence[str]) -> Dataset:
        """Return a data set; one behind a URI is asked for its files, so not once for each branch."""
        key = canonical_json(spec)
        if key not in self._datasets:
            self._datasets[key] = build(spec, DATASET, modules=modules)
        return self._datasets[key]

    def _probe(
        self, role: str, config: Mapping[str, Any], dataset: Dataset, task: Task, modules: Sequence[str]
    ) -> tuple[Probe | None, int, list[Problem], list[str]]:
        own = {key: config[role][key] for key in ("model", "weights", "checkpoint", "weights_backbone")}
        train = config["train"] if role == "student" else config["teacher"]["train"]
        alone = train is not None and train["batch_size"] == config["run"]["workers"]
        key = canonical_json([role, own, config["task"], dataset.image_shape, dataset.num_classes, alone])
        if key not in self._probed:
            self._probed[key] = _probe_model(role, own, dataset, task, modules, alone=alone)
        return self._probed[key]


def _probe_model(
    role: str, section: Mapping[str, Any], dataset: Dataset, task: Task, modules: Sequence[str], *, alone: bool
) -> tuple[Probe | None, int, list[Problem], list[str]]:
    """Build a model on the meta device and look at it; ``alone``: whether a worker trains it on one image at a time."""
    sources = ("weights", "checkpoint", "weights_backbone")
    source = next((key for key in sources if section[key] is not None), "model")
    messages: list[str] = []
    try:
        drawn = draw_model(section["model"], dataset, modules=modules)
        if source == "weights_backbone":
            fetch(find_backbone_weights(drawn, section[source]))
        elif source != "model":
            _, messages = assemble_model(section, dataset, seed=0, modules=modules)
        model = sketch_model(drawn, dataset)
        with torch.device("meta"):
            sample: Tensor = torch.empty((SAMPLE_SIZE, *dataset.image_shape))
        found = task.probe(model, sample)
    except (OSError, RuntimeError, ValueError) as error:
        return None, 1, [Problem(f"{role}.{source}", str(error).partition("\n")[0])], messages
    misfit = task.misfit(found, dataset.num_classes)
    if misfit:  # what paths have to say about such a model helps nobody
        return None, count_parameters(model), [Problem(f"{role}.model", misfit)], messages
    problems = _problems_of_one_image(role, section, model, task, sample[:1]) if alone else []
    return found, count_parameters(model), problems, messages


def _problems_of_one_image(
    role: str, section: Mapping[str, Any], model: nn.Module, task: Task, image: Tensor
) -> list[Problem]:
    """Refuse to train on a single image a model that has to see several: one with batch norm over pooled maps.

    A model that looks at values while it trains cannot be judged without any, and passes.
    """
    try:
        with contextlib.suppress(RuntimeError):
            task.run(model.train(), image)
    except ValueError as error:
        section_of_training = "train" if role == "student" else "teacher.train"
        return [
            Problem(
                f"{section_of_training}.batch_size",
                f"must be at least twice run.workers with {model_label(section)}, which cannot train on one image at a "
                f"time: {str(error).partition(chr(10))[0]}",
            )
        ]
    return []


def _connect(
    name: str, spec: Mapping[str, Any], student: Probe, teacher: Probe, modules: Sequence[str]
) -> tuple[ConnectedPath | None, list[Problem]]:
    path: Path = build(spec, PATH, modules=modules)
    try:
        with torch.device("meta"):
            path.connect(student, teacher)
    except ValueError as error:
        return None, [rejection(error, spec).under(f"paths.{name}")]
    connections = tuple(
        Connection(
            pair.student or "output",
            pair.teacher or "output",
            _shape(student, pair.student),
            _shape(teacher, pair.teacher),
        )
        for pair in path.pairs
    )
    return ConnectedPath(name, str(spec["use"]), path.layers, connections, count_parameters(path), _compares(path)), []


def _compares(path: Path) -> Literal["", "share", "batch"]:
    if not path.batch_dependent:
        return ""
    return "batch" if getattr(path, "gather", False) else "share"


def _shape(model: Probe, tap: str) -> tuple[int, ...]:
    return model.output_shapes[tap] if is_output(tap) else tuple(model[tap].shape)


def model_label(section: Mapping[str, Any]) -> str:
    """Return a model's name, with what it is built on and starts from: ``FCN on ResNet8``, ``resnet18 (DEFAULT)``."""
    name = labels([section])[0]
    backbone = section["model"].get("backbone")
    if isinstance(backbone, Mapping):
        name = f"{name} on {labels([backbone])[0]}"
    begun = section.get("weights_backbone")
    source = section["weights"] or section["checkpoint"] or (f"backbone {begun}" if begun else "")
    return f"{name} ({source})" if source else name


def count_parameters(module: nn.Module) -> int:
    """Return how many numbers a module learns or holds as parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
