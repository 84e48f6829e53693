"""How a data set is divided between student, teacher, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from distill.counter_random import derive_seed, sort_keys
from distill.data.partition import Partition
from distill.data.source import Indices, Source


@dataclass(frozen=True)
class Split:
    """Divides a data set by seed and stratified by label; no image is in two of train, validation and test.

    The order: test (where there is no official one), then validation (where there is no own one) out of the rest,
    then the student's samples out of that rest. With a larger count the images of a smaller one stay chosen, but for
    the rounding of a class's share.

    Attributes:
        validation: share of the training images (below 1), or their number, that is held out of training.
        train: number of images that the student trains on; ``None``: all that are left.
        teacher: the teacher trains on the ``same`` images as the student, or on the ``rest``: all training images that
            are neither the student's nor for validation.
        test: share or number of images held out for the test; only for data sets without an official test part.
        seed: chooses the images; belongs to the data, not to a run, so that all runs of a sweep share the split.
        protocol: ``holdout``, or ``paper``: train on all training images (an own validation part joins them), without
            any validation.

    Raises:
        ValueError: an option is out of range, or two contradict each other.
    """

    validation: float | int = 0.1
    train: int | None = None
    teacher: Literal["same", "rest"] = "same"
    test: float | int = 0.2
    seed: int = 0
    protocol: Literal["holdout", "paper"] = "holdout"

    def __post_init__(self) -> None:
        _check_amount("validation", self.validation)
        _check_amount("test", self.test)
        if self.train is not None and self.train < 1:
            raise ValueError(f"split.train must be a number of images, at least 1, found {self.train!r}")
        if self.teacher not in ("same", "rest"):
            raise ValueError(f"split.teacher must be 'same' or 'rest', found {self.teacher!r}")
        if self.protocol not in ("holdout", "paper"):
            raise ValueError(f"split.protocol must be 'holdout' or 'paper', found {self.protocol!r}")
        if self.protocol == "paper" and (self.train is not None or self.teacher == "rest"):
            raise ValueError(
                "split.train and split.teacher must be left out under protocol 'paper', which trains student and "
                f"teacher on all training images, found train {self.train!r} and teacher {self.teacher!r}"
            )
        if self.teacher == "rest" and self.train is None:
            raise ValueError("split.teacher 'rest' needs split.train, the number of the student's images")

    def check(self, num_images: int, *, num_validation: int = 0, num_test: int = 0) -> None:
        """Check the amounts against a data set's size, before anything is read.

        Args:
            num_images: of all parts.
            num_validation: images of an own validation part; 0: there is none.
            num_test: images of an official test part; 0: there is none.

        Raises:
            ValueError: the parts together ask for more images than there are.
        """
        num_train = num_images - num_validation - num_test
        if not num_test:
            num_train = _remainder("test", self.test, num_train)
        if self.protocol == "paper":
            return
        if not num_validation:
            num_train = _remainder("validation", self.validation, num_train)
        if self.train is None:
            return
        needed = self.train + (1 if self.teacher == "rest" else 0)
        if needed > num_train:
            rest = ", and split.teacher 'rest' needs some beside them" if self.teacher == "rest" else ""
            raise ValueError(
                f"split.train must leave validation and test their images{rest}: found {self.train:,} of "
                f"{num_train:,} training images"
            )

    def divide(self, source: Source) -> Partition:
        """Divide a source's images.

        Raises:
            ValueError: as :meth:`check`.
        """
        num_validation, num_test = source.num_validation, source.num_test
        self.check(len(source), num_validation=num_validation, num_test=num_test)
        positions = np.arange(len(source), dtype=np.int64)
        first_test = len(source) - num_test
        pool, validation, test = np.split(positions, [first_test - num_validation, first_test])
        if not num_test:
            test, pool = self._draw(_count(self.test, len(pool)), pool, source.labels)
        if self.protocol == "paper":
            everything = np.sort(np.concatenate([pool, validation]))
            return Partition(everything, everything, None, test)
        if not num_validation:
            validation, pool = self._draw(_count(self.validation, len(pool)), pool, source.labels)
        if self.train is None:
            return Partition(pool, pool, validation, test)
        train, rest = self._draw(self.train, pool, source.labels)
        return Partition(train, train if self.teacher == "same" else rest, validation, test)

    def _draw(self, count: int, pool: Indices, labels: Indices) -> tuple[Indices, Indices]:
        return draw(count, pool, labels[pool], seed=derive_seed(self.seed, "split"))


def draw(
    count: int, pool: Indices, labels: Indices, *, seed: int, seed_of_ties: int | None = None
) -> tuple[Indices, Indices]:
    """Return ``count`` positions of the pool, each class in its share, and the others; both ascending.

    Args:
        count: how many.
        pool: positions in a source, ascending.
        labels: of these positions.
        seed: names the stream that chooses; see :func:`~distill.counter_random.derive_seed`.
        seed_of_ties: names the stream that orders classes that rounding treats alike; ``None``: by label, so that the
            lowest of them get what rounding leaves, whatever the seed. Validation and test are drawn so for good: with
            another order, splits that results were published on would change.
    """
    keys = sort_keys(seed, 0, pool)
    order = np.lexsort((keys, labels))  # class by class, shuffled within
    classes, sizes = np.unique(labels, return_counts=True)
    places: npt.NDArray[Any] = classes if seed_of_ties is None else sort_keys(seed_of_ties, 0, classes)
    first_of_class = np.cumsum(sizes) - sizes
    place_in_class = np.arange(len(pool)) - np.repeat(first_of_class, sizes)
    is_chosen = np.zeros(len(pool), dtype=bool)
    is_chosen[order] = place_in_class < np.repeat(_quotas(count, sizes, places), sizes)
    return pool[is_chosen], pool[~is_chosen]


def _check_amount(name: str, amount: float | int) -> None:
    """Raise unless the amount is a share strictly between 0 and 1 or a number of images."""
    if isinstance(amount, bool) or amount <= 0 or (isinstance(amount, float) and amount >= 1):
        raise ValueError(
            f"split.{name} must be a share between 0 and 1, such as 0.1, or a number of images, such as 5000, "
            f"found {amount!r}"
        )


def _count(amount: float | int, total: int) -> int:
    """Return an amount as a number of images."""
    return amount if isinstance(amount, int) else round(amount * total)


def _remainder(name: str, amount: float | int, total: int) -> int:
    """Return how many of ``total`` images an amount leaves; raise unless both sides get at least one."""
    count = _count(amount, total)
    if not 1 <= count < total:
        raise ValueError(
            f"split.{name} must take at least one image and leave some to train on: found {amount!r}, "
            f"that is {count:,} of {total:,} images"
        )
    return total - count


def _quotas(count: int, sizes: Indices, places: npt.NDArray[Any]) -> Indices:
    """Share ``count`` out in proportion to the class sizes; the largest remainders get what rounding leaves.

    Args:
        count: what to share out.
        sizes: ``[class]``.
        places: ``[class]``, of equal remainders the one with the lower number comes first; all differ.
    """
    exact = count * sizes
    quotas: Indices = exact // sizes.sum()
    remainders = exact % sizes.sum()
    missing = count - int(quotas.sum())
    quotas[np.lexsort((places, -remainders))[:missing]] += 1
    return quotas
