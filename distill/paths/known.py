"""What the paths share that look at labels: one for each answer, as far as it is known."""

from __future__ import annotations

from torch import Tensor

from distill.batch import Batch
from distill.data.annotation.mask import IGNORE


def known_labels(answers: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
    """Return the label of each answer, and whether it is known; ``None``: all are, as of images with one class each.

    Args:
        answers: ``[batch, class, ...]``, to be labelled.
        batch: its labels are ``[batch, ...]``; in masks 255 stands for what is not known, and becomes 0.

    Raises:
        ValueError: the labels have another shape than the answers, or are objects.
    """
    labels = batch.classes
    places = (len(answers), *answers.shape[2:])
    if labels.shape != places:
        raise ValueError(
            f"each answer needs a label: logits {list(answers.shape)} go with labels {list(places)}, found "
            f"{list(labels.shape)}"
        )
    if labels.dim() == 1:
        return labels, None
    known = labels != IGNORE
    return labels.where(known, 0), known


def mean_of_known(values: Tensor, known: Tensor | None) -> Tensor:
    """Return the mean of ``values``, ``[batch, ...]``, where the label is known; 0 where none is."""
    if known is None:
        return values.mean()
    return (values * known).sum() / known.sum().clamp_min(1)
