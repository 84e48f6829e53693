"""Turns the records of a sweep into its answer."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orchestrator.compare.aggregator_effect import aggregator_effects
from orchestrator.compare.arm_runs import ArmRuns
from orchestrator.compare.arm_summary import ArmSummary
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.design import Design
from orchestrator.compare.experiment import Experiment
from orchestrator.compare.fit import Fit
from orchestrator.compare.folder import Folder
from orchestrator.compare.metric import Metric
from orchestrator.compare.path_effect import path_effects
from orchestrator.compare.records import Records
from orchestrator.compare.run_record import RunRecord


def compare(storage_dir: str | Path, against: str | None = None, metric: str | None = None) -> Comparison:
    """Compare the runs of one experiment.

    Args:
        storage_dir: the folder of the experiment, with its ``runs.jsonl`` and ``experiment.json``; a URI works too.
        against: name of an arm that every other one is held against, beside the student alone.
        metric: another metric of the runs, as ``val/iou/road``, to take instead of the one that ranks them.

    Raises:
        ValueError: the folder holds no experiment, no finished run has the metric, or there is no such arm.
    """
    return analyse(Records.read(Folder(str(storage_dir))), against, metric)


def analyse(records: Records, against: str | None = None, asked: str | None = None) -> Comparison:
    """Compare the runs in ``records``.

    Raises:
        ValueError: no finished run has the metric, or no compared arm is called ``against``.
    """
    metric = Metric.of(records.experiment, records.runs, asked)
    latest = {(record.arm, record.seed): record for record in records.runs}
    everything = Design(list(latest.values()))
    runs_of_arm = [
        ArmRuns.of(
            arm, [record for record in latest.values() if record.arm == arm.name], metric=metric, seeds=records.seeds
        )
        for arm in everything.arms
    ]
    compared = [runs for runs in runs_of_arm if runs.is_compared]
    cells = [record for runs in compared for record in runs.finished]
    values = np.array([metric.of_run(record) for record in cells], dtype=np.float64)
    fit = Fit(Design(cells), values)
    reference = None if against is None or not compared else _reference(fit, runs_of_arm, against)
    arms = [_summary(runs, fit, metric, reference) for runs in compared]
    return Comparison(
        experiment=records.experiment,
        metric=metric,
        arms=tuple(sorted(arms, key=lambda arm: (-metric.sign * arm.mean, arm.runs.arm.name))),
        incomplete=tuple(runs for runs in runs_of_arm if runs.state != "complete"),
        paths=path_effects(fit, sign=metric.sign, paths=everything.paths),
        aggregators=aggregator_effects(fit, sign=metric.sign),
        noise=fit.noise,
        cautions=(*_cautions_of_metric(metric), *_cautions(records, compared, fit, num_latest=len(latest))),
        gains=_gains(everything, runs_of_arm, metric),
        seeds=records.seeds,
        num_records=len(records.runs),
        against=against,
    )


def _reference(fit: Fit, runs_of_arm: Sequence[ArmRuns], name: str) -> int:
    """Return the position of the arm that the others are held against."""
    if name in fit.design.index:
        return fit.design.index[name]
    left_out = next((runs for runs in runs_of_arm if runs.arm.name == name), None)
    if left_out is not None:
        raise ValueError(f"--against must name an arm that is compared; {left_out.story}")
    names = sorted(fit.design.index)
    nearest = difflib.get_close_matches(name, names, n=3) or names
    raise ValueError(f"--against must name an arm with finished runs, found {name!r}; nearest: {', '.join(nearest)}")


def _summary(runs: ArmRuns, fit: Fit, metric: Metric, reference: int | None) -> ArmSummary:
    position = fit.design.index[runs.arm.name]
    alone, equal = fit.design.alone[position], fit.design.equal(runs.arm)
    return ArmSummary(
        runs=runs,
        metric=metric,
        over_alone=fit.estimate([(position, alone)]) if alone is not None and not runs.arm.is_alone else None,
        over_equal=fit.estimate([(position, equal)]) if equal is not None else None,
        over_reference=fit.estimate([(position, reference)]) if reference not in (None, position) else None,
        is_reference=position == reference,
        block=int(fit.design.block_of_arm[position]),
    )


def _gains(design: Design, runs_of_arm: Sequence[ArmRuns], metric: Metric) -> dict[str, float]:
    """Each finished run less the student alone of the same seed; 0 for the student alone itself."""
    gains = {}
    for position, runs in enumerate(runs_of_arm):
        alone = design.alone[position]
        if alone is None:
            continue
        controls: dict[int, RunRecord] = {run.seed: run for run in runs_of_arm[alone].finished}
        for run in runs.finished:
            value = metric.of_run(run)
            control = metric.of_run(controls[run.seed]) if run.seed in controls else None
            if value is not None and control is not None:
                gains[run.key] = value - control
    return gains


def _cautions(records: Records, compared: Sequence[ArmRuns], fit: Fit, *, num_latest: int) -> tuple[str, ...]:
    """What a reader has to know before believing the numbers."""
    cautions = [*records.damaged, *_cautions_of_setting(records.experiment)]
    if records.experiment.protocol == "paper":
        cautions.append(
            "protocol paper: no images were held out, so the TEST images rank the arms; the best arm's number is "
            "flattered by that choice"
        )
    if compared and not any(runs.arm.is_alone for runs in compared):
        cautions.append("no finished run of the student alone: no difference to it can be shown")
    cautions.extend(_cautions_of_held_out(compared))
    design = fit.design
    borrowed = sum(
        alone is not None and not design.has_own_alone(position) for position, alone in enumerate(design.alone)
    )
    if borrowed:
        cautions.append(
            f"{borrowed} arms have no student alone of their own setting; they are held against the one nearest to it"
        )
    if compared and max(len(runs.finished) for runs in compared) < 2:
        cautions.append("a single seed: intervals need at least 2 seeds, so everything is undecided")
    elif compared and fit.noise is None:
        cautions.append("no noise could be measured from these runs, so everything is undecided")
    if fit.noise is not None:
        cautions.extend(fit.noise.cautions)
    planned = records.experiment.planned
    if planned is not None and planned > len(records.runs):
        cautions.append(f"{planned - len(records.runs)} of {planned} planned runs have left no record")
    if num_latest < len(records.runs):
        cautions.append(
            f"{len(records.runs) - num_latest} runs repeat an arm and seed under another key; the last one counts"
        )
    return tuple(cautions)


def _cautions_of_metric(metric: Metric) -> list[str]:
    """That other runs may be best by what ranks the sweep."""
    if metric.instead_of is None:
        return []
    return [
        f"{metric.instead_of} ranks this sweep, not val/{metric.name}; the verdicts do not count how many metrics "
        "were looked at, and one of many shows an effect by chance"
    ]


def _cautions_of_held_out(compared: Sequence[ArmRuns]) -> list[str]:
    """Which arms trained on fewer images than others."""
    shares = {(runs.arm.aggregator, run.held_out) for runs in compared for run in runs.finished}
    if len({share for _, share in shares}) < 2:
        return []
    named = ", ".join(f"{aggregator} ({100 * share:g} %)" for aggregator, share in sorted(shares) if share)
    return [f"some aggregators hold out training images, so their students trained on fewer than the others: {named}"]


def _cautions_of_setting(experiment: Experiment) -> list[str]:
    """What the file itself decides about the numbers."""
    cautions = []
    data_seed = experiment.config.get("data_seed")
    if data_seed is not None and len(experiment.seeds) > 1:
        cautions.append(
            f"all seeds share the order of the data and its augmentation (data_seed: {data_seed}), so the intervals "
            "leave out what these vary"
        )
    if experiment.config.get("store") == "float16":
        cautions.append("the teacher's targets were stored in float16, so students learned from rounded ones")
    return cautions
