"""The end of a sweep: the answer printed, written, and shown in MLflow, and the best student saved."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.compare import Comparison, compare
from orchestrator.compare.files import PREDICTIONS
from orchestrator.failure_reason import failure_reason
from orchestrator.outputs import Outputs
from orchestrator.storage import Storage
from orchestrator.tracking import SweepLog
from orchestrator.tracking.student_model import save_student_model

log = logging.getLogger(__name__)

COMPARISON = "compare"
"""The folder of an experiment that holds its comparison."""
BEST = "best"
"""The folder of an experiment that holds its best student."""


def conclude(outputs: Outputs, mirror: SweepLog) -> None:
    """Compare all runs that ended; print the answer and keep it.

    Args:
        outputs: the experiment's folder.
        mirror: MLflow's mirror of it.
    """
    comparison = compare(outputs.folder)
    if not comparison.arms:
        print("No run has finished, so there is nothing to compare.", file=sys.stderr)
        return
    _draw_predictions(comparison, outputs)
    files = comparison.write(outputs.folder / COMPARISON)
    _mirror(comparison, files, mirror)
    print()
    for sentence in comparison.sentences:
        print(sentence)
    print(f"\n{comparison.table_text(color=sys.stdout.isatty() and not os.environ.get('NO_COLOR'))}\n")
    print(f"Report: {files['report']}")
    saved = _save_best(comparison, outputs, mirror)
    if saved is not None:
        print(f"Best student: {saved / 'student.pt'}")
    print(f"Open the MLflow UI: distillery ui {outputs.name}")


def _mirror(comparison: Comparison, files: Mapping[str, Path], mirror: SweepLog) -> None:
    numbers = comparison.to_json()
    arms: list[dict[str, Any]] = numbers["arms"]
    columns = [name for name, value in arms[0].items() if not isinstance(value, dict | list)]
    mirror.answer(
        " ".join(comparison.sentences),
        comparison.table_markdown,
        columns=columns,
        rows=[[arm[name] for name in columns] for arm in arms],
        effects={f"path_effect/{each.path}": each.effect.difference for each in comparison.paths if each.effect},
        pictures={name: path for name, path in files.items() if name.startswith("compare/")},
    )


def _draw_predictions(comparison: Comparison, outputs: Outputs) -> None:
    """Draw what the models find on a few images; a sweep does not fail for want of a picture."""
    from orchestrator.prediction_picture import draw_predictions

    try:
        draw_predictions(comparison, outputs, outputs.folder / COMPARISON / PREDICTIONS)
    except Exception as error:
        log.warning("no picture of predictions: %s", failure_reason(error))
        log.debug("traceback:", exc_info=error)


def _save_best(comparison: Comparison, outputs: Outputs, mirror: SweepLog) -> Path | None:
    """Save the best run of the best arm, chosen on validation: a plain state dict, and a model for MLflow."""
    if comparison.best is None:
        return None
    run = comparison.best_run
    folder = outputs.folder / BEST
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    Storage(outputs.run_directory(run.key)).download("student.pt", folder / "student.pt")
    module, example = _rebuild(outputs, run.key, folder / "student.pt")
    if module is None:
        print("The best student is kept as student.pt only: its task exports no model for MLflow.")
        return folder
    try:
        save_student_model(module, example, folder / "model")
    except Exception as error:  # torch.export raises whatever a model's own code makes it raise
        log.warning("the best student is kept as student.pt only, for it cannot be exported: %s", failure_reason(error))
        log.debug("traceback:", exc_info=error)
        shutil.rmtree(folder / "model", ignore_errors=True)
        return folder
    mirror.best_student(run, folder / "model", run.result)
    return folder


def _rebuild(outputs: Outputs, key: str, weights: Path) -> tuple[Any, Any]:
    """Return the best student as its task exports it, or ``None``, and two images of the kind that it takes."""
    import torch

    from distill.data.base import Dataset
    from orchestrator.assemble import assemble

    config = json.loads(Storage(outputs.run_directory(key)).read_text("config.json"))
    assembly = assemble(config | {"teacher": None, "paths": {}, "aggregator": {"use": "Equal"}})
    dataset: Dataset = assembly.dataset
    assembly.student.load_state_dict(torch.load(weights, weights_only=True))
    return assembly.task.exported(assembly.student.eval()), torch.zeros(2, *dataset.image_shape)
