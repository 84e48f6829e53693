"""Paths between the heads of detectors from a file: checked, and trained from stored targets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from orchestrator.check import make_plan
from orchestrator.config import load
from orchestrator.training import train

SGD = {"use": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9}
FASTER_RCNN = {"use": "FasterRCNN", "strides": [4, 8, 16], "width": 16, "head_width": 24, "roi_size": 3}
FCOS = {"use": "DistributionFCOS", "strides": [4, 8, 16], "width": 32, "depth": 1, "num_bins": 8}
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "regions": (
        FASTER_RCNN,
        {"regions": {"use": "RegionLogits", "number": 16}, "focal": {"use": "FGD"}, "objects": {"use": "SoftTarget"}},
    ),
    "distributions": (
        FCOS,
        {"sides": {"use": "LD"}, "boxes": {"use": "BoxOffsets"}, "channels": {"use": "CWD"}},
    ),
}


def write(folder: Path, kind: str) -> Path:
    model, paths = KINDS[kind]
    content = {
        "task": {"use": "Detection"},
        "data": {
            "use": "DigitScenes",
            "annotate": "boxes",
            "num_train": 16,
            "num_validation": 4,
            "num_test": 4,
            "size": 48,
        },
        "teacher": {
            "model": {**model, "backbone": {"use": "ResNet14", "width": 8}},
            "train": {"epochs": 1, "batch_size": 8, "optimizer": SGD},
        },
        "student": {"model": {**model, "backbone": {"use": "ResNet8", "width": 4}}},
        "paths": paths,
        "aggregator": {"use": "Equal"},
        "train": {"epochs": 2, "batch_size": 8, "log_every": 1, "optimizer": SGD, "clip_norm": 5.0},
    }
    file = folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_checked_and_trains_from_the_store(tmp_path: Path, kind: str) -> None:
    experiment = load(write(tmp_path, kind), [f"run.storage={tmp_path}", "store=exact"])
    [branch] = make_plan(experiment).branches
    assert {path.name: path.adapter_parameters > 0 for path in branch.paths} == {
        name: name == "focal" for name in KINDS[kind][1]
    }
    assert train(experiment, resume=False, address=None) == 0
    [run] = (tmp_path / kind / "runs").iterdir()
    table = pq.read_table(run / "trajectory.parquet")
    for name in KINDS[kind][1]:
        values = table[f"{name}/loss"].to_pylist()
        assert all(math.isfinite(value) for value in values)
        assert len(set(values)) > 1
