"""Fills in the defaults of everything that a file names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from distill.build import blueprint, build
from distill.slots import AGGREGATOR, DATASET, MODEL, OPTIMIZER, PATH, SCHEDULER, TASK, Slot
from distill.tasks import Task
from orchestrator.config.experiment import Experiment
from orchestrator.config.sections import ModelSection, RunOptions, TeacherSection, TrainOptions
from orchestrator.config.stopping_slot import STOPPING_RULE
from orchestrator.ranking import VALIDATION


def complete(experiment: Experiment) -> Experiment:
    """Return the experiment with the defaults of its classes and its task written out, so that its hash knows them.

    Raises:
        ValueError: a name or an option is wrong; :func:`semantics` finds all of them first.
    """

    def filled(spec: Mapping[str, Any], slot: Slot) -> dict[str, Any]:
        return completed(spec, slot, experiment.modules)

    def training(options: TrainOptions) -> TrainOptions:
        scheduler = None if options.scheduler is None else filled(options.scheduler, SCHEDULER)
        return replace(
            options,
            optimizer=filled(options.optimizer, OPTIMIZER),
            scheduler=scheduler,
            eval_batch_size=options.eval_batch_size or task.eval_batch_size,
        )

    def model(section: ModelSection) -> Any:
        return replace(section, model=filled(section.model, MODEL))

    def taught(teacher: TeacherSection) -> Any:
        if teacher.train is None:
            return model(teacher)
        train = training(TrainOptions(**teacher.train))
        return replace(model(teacher), train=vars(train))

    task: Task = build(experiment.task, TASK, modules=experiment.modules)
    stops = experiment.run.scheduler
    rule = None if stops is None else completed(stops, STOPPING_RULE, ())
    return replace(
        experiment,
        task=filled(experiment.task, TASK),
        data=filled(experiment.data, DATASET),
        student=model(experiment.student),
        teacher=None if experiment.teacher is None else taught(experiment.teacher),
        paths={name: filled(spec, PATH) for name, spec in experiment.paths.items()},
        aggregator=filled(experiment.aggregator, AGGREGATOR),
        train=training(experiment.train),
        run=_ranked(replace(experiment.run, scheduler=rule), task),
    )


def _ranked(run: RunOptions, task: Task) -> RunOptions:
    """Write out what the task ranks runs by, and which end of it is the better one."""
    metric = run.metric or f"{VALIDATION}{task.metric}"
    is_better_small = metric.removeprefix(VALIDATION) in task.smaller_is_better
    return replace(run, metric=metric, mode=run.mode or ("min" if is_better_small else "max"))


def completed(spec: Mapping[str, Any], slot: Slot, modules: tuple[str, ...]) -> dict[str, Any]:
    """Return one specification with defaults filled in."""
    plain: dict[str, Any] = json.loads(_completed(json.dumps(spec), slot, modules))
    return plain


@lru_cache(maxsize=4096)
def _completed(spec: str, slot: Slot, modules: tuple[str, ...]) -> str:
    """Do so once for each specification: the runs of a sweep share most of theirs."""
    return json.dumps(blueprint(json.loads(spec), slot, modules=modules).plain())
