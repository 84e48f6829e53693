"""The weights that the runs of an experiment came to: means over the second half of the training, arm by arm.

python -m benchmarks.weights outputs/aggregators
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

ENDING = "/weight"


def late_weights(trajectory: Path, paths: Sequence[str]) -> dict[str, float]:
    """Return each path's mean weight over the second half of a training, and the task's where it has one."""
    table = pq.read_table(trajectory)
    table = table.slice(len(table) // 2)
    columns = {**{path: f"{path}{ENDING}" for path in paths}, "task": "task_weight"}
    found = {name: column for name, column in columns.items() if column in table.column_names}
    return {name: statistics.fmean(table[column].to_pylist()) for name, column in found.items()}


def by_arm(folder: Path) -> dict[str, list[dict[str, float]]]:
    """Return the late weights of every finished run that has paths and whose trajectory lies here, by arm."""
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    for line in (folder / "runs.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        trajectory = folder / "runs" / record["key"] / "trajectory.parquet"
        if record["paths"] and record["result"]["status"] == "finished" and trajectory.exists():
            runs[record["arm"]].append(late_weights(trajectory, record["paths"]))
    return dict(runs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line an arm: mean over its runs, and the standard deviation where there are several."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="of the experiment")
    for arm, runs in sorted(by_arm(parser.parse_args(arguments).folder).items()):
        shown = []
        for name in runs[0]:
            values = [run[name] for run in runs]
            spread = f" +- {statistics.stdev(values):.2g}" if len(values) > 1 else ""
            shown.append(f"{name} {statistics.fmean(values):.3g}{spread}")
        print(f"{arm} (n = {len(runs)}): {', '.join(shown)}")


if __name__ == "__main__":
    main()
