"""What a training sees of its data: one loader for each use."""

from __future__ import annotations

from dataclasses import dataclass

from distill.data.loader import Loader


@dataclass(frozen=True)
class Loaders:
    """This rank's loaders.

    Attributes:
        train: what the student trains on.
        validation: what ranks and stops; ``None`` under the paper's protocol.
        test: evaluated once.
        held_out: training images that the student does not train on, for an aggregator that learns from them; gives all
            ranks equally many.
    """

    train: Loader
    validation: Loader | None
    test: Loader
    held_out: Loader | None = None
