"""Training images that the student does not train on, for an aggregator that learns from them."""

from __future__ import annotations

from distill.counter_random import derive_seed
from distill.data.split import draw
from distill.data.subset import Subset


def hold_out(training: Subset, share: float, *, seed: int, at_least: int = 1) -> tuple[Subset, Subset]:
    """Divide training images into those to train on and those held out, each class in its share.

    The images follow from the subset, the share and the seed alone; with a larger share those of a smaller one stay
    held out, but for the rounding of a class's share.

    Args:
        training: the images.
        share: that is held out, between 0 and 1.
        seed: of the split, so that all runs of a sweep hold out the same images.
        at_least: images that must be held out, one for each worker.

    Raises:
        ValueError: too few images would be held out, or none be left to train on.
    """
    count = round(share * len(training))
    if not at_least <= count < len(training):
        wanted = "one image" if at_least == 1 else f"{at_least:,} images, one for each worker,"
        raise ValueError(
            f"held_out must take at least {wanted} of the training images and leave some to train on: found {share!r}, "
            f"that is {count:,} of {len(training):,} images"
        )
    held_out, rest = draw(count, training.indices, training.labels, seed=derive_seed(seed, "held out"))
    return Subset(training.source, rest), Subset(training.source, held_out)
