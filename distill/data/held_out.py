"""Training images that the student does not train on, for an aggregator that learns from them."""

from __future__ import annotations

from distill.counter_random import derive_seed
from distill.data.split import draw
from distill.data.subset import Subset

LEAST_PER_WORKER = 2
"""Images that each worker needs at once: BatchNorm takes its statistics of more than one."""


def hold_out(training: Subset, share: float, *, seed: int, num_workers: int = 1) -> tuple[Subset, Subset]:
    """Divide training images into those to train on and those held out, each class in its share.

    The images follow from the subset, the share and the seed alone; with a larger share those of a smaller one stay
    held out, but for the rounding of a class's share. Which of the classes with equal shares get the images that
    rounding leaves is drawn, so that a small share does not always hold the same classes.

    Args:
        training: the images.
        share: that is held out, between 0 and 1.
        seed: of the split, so that all runs of a sweep hold out the same images.
        num_workers: that share the images; each needs two on both sides.

    Raises:
        ValueError: too few images would be held out, or be left to train on.
    """
    count = round(share * len(training))
    least = LEAST_PER_WORKER * num_workers
    if not least <= count <= len(training) - least:
        whose = "" if num_workers == 1 else f", {LEAST_PER_WORKER} for each of {num_workers} workers,"
        raise ValueError(
            f"held_out must take at least {least:,} of the training images{whose} and leave as many to train on: "
            f"found {share!r}, that is {count:,} of {len(training):,} images"
        )
    held_out, rest = draw(
        count,
        training.indices,
        training.labels,
        seed=derive_seed(seed, "held out"),
        seed_of_ties=derive_seed(seed, "held out", "classes"),
    )
    return Subset(training.source, rest), Subset(training.source, held_out)
