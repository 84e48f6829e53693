"""``distillery compare EXPERIMENT``: the answer of a sweep again."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from orchestrator.compare.analysis import compare
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.folder import Folder
from orchestrator.compare.locate import locate
from orchestrator.compare.wording import counted

DONE, FAILED, USER_ERROR = 0, 1, 2


def command(
    name_or_path: str, *, storage: str, as_json: bool, against: str | None = None, metric: str | None = None
) -> int:
    """Print the answer of an experiment in two sentences and a table, and write its report.

    Args:
        name_or_path: name of an experiment under ``storage``, its folder, or its YAML file.
        storage: where experiments lie, a path or URI.
        against: name of an arm that all others are held against, instead of Equal with the same paths.
        metric: another metric of the runs, as ``val/iou/road``, to take instead of the one that ranks them; its report
            lies beside the sweep's own, in a folder of the metric's name.
        as_json: print the numbers as one JSON object instead, and write nothing.

    Returns:
        0; 1 where no run has finished yet; 2 where there is no such experiment, arm or metric.
    """
    try:
        folder = locate(name_or_path, storage=storage)
        comparison = compare(folder.location, against, metric)
    except ValueError as error:
        print(f"distillery compare: {error}", file=sys.stderr)
        return USER_ERROR
    if as_json:
        print(json.dumps(comparison.to_json(), indent=2, allow_nan=False, default=str))
        return DONE if comparison.arms else FAILED
    if not comparison.arms:
        for runs in comparison.incomplete:
            print(f"Not complete: {runs.story}.", file=sys.stderr)
        print(f"distillery compare: no run of {comparison.experiment.name!r} has finished yet", file=sys.stderr)
        return FAILED
    _show(comparison, folder)
    return DONE


def _show(comparison: Comparison, folder: Folder) -> None:
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    runs = f"{counted(comparison.num_records, 'run')}, {counted(len(comparison.seeds), 'seed')}"
    print(f"{comparison.experiment.question} ({comparison.experiment.name}: {runs})\n")
    for sentence in comparison.sentences:
        print(sentence)
    print(f"\n{comparison.table_text(color=color)}\n")
    # A remote folder is only read; its report lies here.
    base = folder.local if folder.local is not None else Path(comparison.experiment.name)
    place = base / "compare"
    if comparison.metric.instead_of is not None:
        place /= comparison.metric.name.replace("/", "-")
    files = comparison.write(place)
    print(f"Report: {files['report']}")
