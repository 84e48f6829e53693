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
    classes: Sequence[str],
    teacher_answers: Sequence[Tensor] | None = None,
    precision: Precision = "float32",
) -> dict[str, float]:
    """Evaluate ``model`` on all samples of ``loader``, each exactly once over all ranks.

    Args:
        model: in any mode; it is evaluated in evaluation mode and put back.
        loader: gives this rank's share of the split, in a fixed order.
        task: defines the metrics.
        classes: names of the data's classes, by label.
        teacher_answers: what the teacher says of the same batches, from :func:`ask_for_answers`.
        precision: the student's forward precision.

    Returns:
        The task's metrics over every rank's samples; equal on every rank.
    """
    was_training = model.training
    model.eval()
    metrics = task.metrics(classes, loader.device)
    for number, batch in enumerate(loader.epoch(0)):
        with torch.autocast(loader.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = task.run(model, batch.images)
        told = None if teacher_answers is None else teacher_answers[number].to(loader.device)
        metrics.update(output, batch, told)
        del output  # dense logits are large: not beside those of the next batch
    model.train(was_training)
    return metrics.compute()


def ask_for_answers(teacher: Teacher, loader: Loader) -> list[Tensor] | None:
    """Return what the teacher says of each batch of ``loader``: asked once, compared against every epoch.

    Returns:
        For each batch ``[batch, ...]`` on the CPU; ``None`` where the task compares no answers.
    """
    if not teacher.task.compares_answers:
        return None
    answers: list[Tensor] = []
    for batch in loader.epoch(0):
        answer = teacher.answer(batch.images)
        assert answer is not None
        answers.append(answer.cpu())
    return answers
