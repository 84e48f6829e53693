"""Exact evaluation of a model over a split, on any number of ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.data import Loader
from distill.distiller import Precision
from distill.tasks import Task
from distill.teacher import Teacher


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loader: Loader,
    task: Task,
    *,
    num_classes: int,
    teacher_logits: Sequence[Tensor] | None = None,
    precision: Precision = "float32",
) -> dict[str, float]:
    """Evaluate ``model`` on all samples of ``loader``, each exactly once over all ranks.

    Args:
        model: in any mode; it is evaluated in evaluation mode and put back.
        loader: gives this rank's share of the split, in a fixed order.
        task: defines the metrics.
        num_classes: number of classes.
        teacher_logits: the teacher's logits for the same batches, from :func:`teacher_predictions`.
        precision: the student's forward precision.

    Returns:
        The task's metrics over every rank's samples; equal on every rank.
    """
    was_training = model.training
    model.eval()
    metrics = task.metrics(num_classes, loader.device)
    for number, batch in enumerate(loader.epoch(0)):
        with torch.autocast(loader.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = model(batch.images)
        metrics.update(output, batch, None if teacher_logits is None else teacher_logits[number])
    model.train(was_training)
    return metrics.compute()


def teacher_predictions(teacher: Teacher, loader: Loader) -> list[Tensor]:
    """Return the teacher's logits for each batch of ``loader``: asked once, compared against every epoch."""
    return [teacher.predict(batch.images) for batch in loader.epoch(0)]
