"""All paths there are, in one file: it is right for models of any family, and trains on one worker and on two."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from distill import paths
from distill.paths.batch_dependent import BatchDependent
from orchestrator.check import make_plan
from orchestrator.config import load
from orchestrator.config.errors import UserError
from orchestrator.training import train

PAIRS = {
    "resnet50 to mobilenet_v2": ({"use": "torchvision.models.resnet50"}, {"use": "torchvision.models.mobilenet_v2"}),
    "resnet18 to a small transformer": (
        {"use": "torchvision.models.resnet18"},
        {"use": "small_models.small_transformer"},
    ),
    "small residual networks": ({"use": "ResNet14", "width": 8}, {"use": "ResNet8", "width": 8}),
}


OF_OTHER_TASKS = {"BoxOffsets", "FGD", "IFVD", "LD", "RegionLogits"}
"""Paths that classifiers have no use for: their own refusal says so."""

EVERY = tuple(name for name in paths.__all__ if name not in OF_OTHER_TASKS)
ADAPTED = tuple(name for name in EVERY if getattr(paths, name).non_negative)
"""Adaptive refuses a loss that can be negative: it would raise its weight without end."""


def write(folder: Path, pair: str, *, names: tuple[str, ...] = ADAPTED, aggregator: str = "Adaptive") -> Path:
    teacher, student = PAIRS[pair]
    small = pair == "small residual networks"
    every: dict[str, dict[str, Any]] = {name: {"use": name} for name in names}
    for name, spec in every.items():
        if issubclass(getattr(paths, name), BatchDependent):
            spec["gather"] = True
    content: dict[str, Any] = {
        "modules": ["small_models"],
        "data": {
            "use": "Digits",
            "size": 16 if small else 32,
            "channels": 1 if small else 3,
            "split": {"train": 128, "validation": 128, "teacher": "rest"},
        },
        "teacher": {"model": teacher, "train": {"epochs": 1}},
        "student": {"model": student},
        "paths": every,
        "aggregator": {"use": aggregator},
        "train": {"epochs": 2, "batch_size": 32, "optimizer": {"use": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9}},
    }
    file = folder / "every_path.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize("pair", PAIRS)
def test_a_file_with_all_paths_at_once_is_right(tmp_path: Path, pair: str) -> None:
    file = write(tmp_path, pair, names=EVERY, aggregator="Equal")
    plan = make_plan(load(file, [f"run.storage={tmp_path}"]))
    [branch] = plan.branches
    assert {path.name for path in branch.paths} == set(EVERY)


@pytest.mark.parametrize("name", sorted(OF_OTHER_TASKS))
def test_paths_of_other_tasks_are_refused(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, "small residual networks", names=(name,), aggregator="Equal")
    with pytest.raises(
        UserError, match=rf"paths\.{name}.*: {name} (reads the classes of (objects|pixels)|compares the)"
    ):
        make_plan(load(file, [f"run.storage={tmp_path}"]))


def losses(folder: Path) -> dict[str, list[float]]:
    """Return each path's losses over the run's steps."""
    [run] = (folder / "every_path" / "runs").iterdir()
    table = pq.read_table(run / "trajectory.parquet")
    return {name: table[f"{name}/loss"].to_pylist() for name in ADAPTED}


def check_run(folder: Path) -> None:
    found = losses(folder)
    assert all(math.isfinite(value) for values in found.values() for value in values)
    assert all(len(set(values)) > 1 for values in found.values()), "a path whose loss never changes does nothing"
    [line] = (folder / "every_path" / "runs.jsonl").read_text().splitlines()
    assert json.loads(line)["result"]["status"] == "finished"


def test_all_paths_train_together_in_this_process(tmp_path: Path) -> None:
    settings = [f"run.storage={tmp_path}", "train.log_every=1"]
    assert train(load(write(tmp_path, "small residual networks"), settings), resume=False, address=None) == 0
    check_run(tmp_path)


@pytest.mark.ray
@pytest.mark.slow
def test_all_paths_train_together_on_two_workers(ray_cluster: Any, tmp_path: Path) -> None:
    settings = [f"run.storage={tmp_path}", "train.log_every=1", "run.workers=2"]
    assert train(load(write(tmp_path, "small residual networks"), settings), resume=False, address=None) == 0
    check_run(tmp_path)
