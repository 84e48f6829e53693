"""Segmentation and detection from the same kind of file: in this process, and on two workers with the same metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml

from distill.build import build
from distill.data.loader import Loader
from distill.evaluate import ask_for_answers, evaluate
from distill.slots import DATASET
from distill.teacher import Teacher
from orchestrator.assemble import assemble, assemble_model
from orchestrator.config import load
from orchestrator.training import train

RETINANET = {"use": "RetinaNet", "strides": [4, 8, 16], "depth": 1, "width": 16, "anchor_scale": 3.0}
TASKS: dict[str, dict[str, Any]] = {
    "segmentation": {
        "task": {"use": "SemanticSegmentation"},
        "data": {"use": "DigitScenes", "annotate": "masks"},
        "teacher": {"model": {"use": "FCN", "backbone": {"use": "ResNet8", "width": 8}, "output_stride": 4}},
        "student": {"model": {"use": "LRASPP", "backbone": {"use": "WRN_16_1"}, "width": 8, "scale": 0.5}},
    },
    "detection": {
        "task": {"use": "Detection"},
        "data": {"use": "DigitScenes", "annotate": "boxes"},
        "teacher": {"model": {**RETINANET, "backbone": {"use": "ResNet14", "width": 8}}},
        "student": {"model": {**RETINANET, "backbone": {"use": "ResNet8", "width": 4}}},
    },
}
SPLITS = {"num_train": 32, "num_validation": 7, "num_test": 5}
"""Neither validation nor test is a multiple of two workers' batches."""


def write(folder: Path, kind: str) -> Path:
    parts = TASKS[kind]
    sgd = {"use": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9}
    content = {
        **parts,
        "data": {**parts["data"], **SPLITS, "size": 48, "augment": [{"use": "RandomScaleCrop", "size": 48}]},
        "teacher": {**parts["teacher"], "train": {"epochs": 1, "batch_size": 8, "optimizer": sgd}},
        "paths": {
            "soft_target": {"use": "SoftTarget"},
            "attention": {"use": "AttentionTransfer"},
            "pkd": {"use": "PKD", "gather": True},
        },
        "aggregator": {"use": "Adaptive", "modifiers": [{"use": "CosineGate"}]},
        "train": {
            "epochs": 2,
            "batch_size": 8,
            "eval_batch_size": 3,
            "log_every": 1,
            "optimizer": sgd,
            "clip_norm": 5.0,
        },
    }
    file = folder / f"{kind}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def save_teacher(file: Path, kind: str) -> None:
    """Save a teacher that has learnt nothing."""
    dataset = build({**TASKS[kind]["data"], **SPLITS, "size": 48}, DATASET)
    section = {**TASKS[kind]["teacher"], "weights": None, "checkpoint": None}
    model, _ = assemble_model(section, dataset, seed=0)
    torch.save(model.state_dict(), file)


def run_folder(storage: Path, kind: str) -> Path:
    [folder] = (storage / kind / "runs").iterdir()
    return folder


def check_trajectory(folder: Path) -> None:
    table = pq.read_table(folder / "trajectory.parquet")
    for name in ("soft_target", "attention", "pkd"):
        losses = table[f"{name}/loss"].to_pylist()
        assert all(math.isfinite(loss) for loss in losses)
        assert len(set(losses)) > 1


def evaluated_here(folder: Path) -> dict[str, dict[str, float]]:
    """Evaluate a run's student in this process, image by image, and its agreement with the teacher that was given."""
    config = json.loads((folder / "config.json").read_text())
    assembly = assemble({**config, "paths": {}, "aggregator": {"use": "Equal"}})
    assembly.student.load_state_dict(torch.load(folder / "student.pt", weights_only=True))
    assert assembly.teacher is not None
    teacher = Teacher(assembly.teacher, assembly.task)
    data = assembly.dataset.load()
    metrics = {}
    for name, subset in (("validation", data.validation), ("test", data.test)):
        assert subset is not None
        loader = Loader(
            subset,
            batch_size=1,
            mean=data.mean,
            std=data.std,
            shuffle=False,
            drop_last=False,
            device=torch.device("cpu"),
        )
        answers = ask_for_answers(teacher, loader)
        metrics[name] = evaluate(assembly.student, loader, assembly.task, classes=data.classes, teacher_answers=answers)
    return metrics


@pytest.mark.parametrize("kind", TASKS)
def test_a_file_of_each_task_trains(tmp_path: Path, kind: str) -> None:
    experiment = load(write(tmp_path, kind), [f"run.storage={tmp_path}"])
    assert train(experiment, resume=False, address=None) == 0
    check_trajectory(run_folder(tmp_path, kind))


@pytest.mark.ray
@pytest.mark.parametrize("kind", TASKS)
def test_two_workers_measure_what_one_process_measures(ray_cluster: Any, tmp_path: Path, kind: str) -> None:
    save_teacher(tmp_path / "teacher.pt", kind)  # rather than to start two more workers that train one
    given = [f"teacher.checkpoint={tmp_path}/teacher.pt", "teacher.train=null"]
    experiment = load(write(tmp_path, kind), [f"run.storage={tmp_path}", "run.workers=2", *given])
    assert train(experiment, resume=False, address=None) == 0
    folder = run_folder(tmp_path, kind)
    check_trajectory(folder)
    result = json.loads((folder / "result.json").read_text())
    for split, expected in evaluated_here(folder).items():
        assert result[split] == pytest.approx(expected, rel=1e-4, abs=1e-4)
