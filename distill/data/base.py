"""The contract of a data set: cheap to construct, loaded when asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch

from distill.data.annotation import Annotation, Sample
from distill.data.data import Data
from distill.data.source import Source
from distill.data.split import Split
from distill.data.subset import Subset
from distill.data.transforms.base import Transform


class Dataset(ABC):
    """A data set as an experiment names it. The constructor checks options and folders and reads no image.

    The folder may be behind a URI: the constructor lists it there, and loading copies what is needed to this machine.

    Args:
        num_classes: number of classes.
        image_shape: (channels, height, width) as the models see it.
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
        split: who sees which images; default: ``Split()``.
        augment: what training images go through, in order.

    Raises:
        ValueError: an option is wrong, or the augmentation cannot take such images.
    """

    annotation: type[Annotation] | None = None
    """What annotates the images, place by place; ``None``: the class of an image is all that is known. A data set that
    leaves the choice to an option sets its own before it calls this constructor."""
    annotations: ClassVar[tuple[type[Annotation], ...]] = ()
    """All that such an option chooses from; empty: there is no choice."""

    def __init__(
        self,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        mean: Sequence[float],
        std: Sequence[float],
        split: Split | None,
        augment: Sequence[Transform],
    ) -> None:
        self.num_classes = num_classes
        self.image_shape = image_shape
        self.mean = _per_channel("mean", mean, image_shape[0])
        self.std = _per_channel("std", std, image_shape[0])
        self.split = split if split is not None else Split()
        self.transforms = tuple(augment)
        if min(self.std) <= 0:
            raise ValueError(f"std must be above 0 in each channel, found {list(self.std)}")
        self._try_augmentation()

    def load(self) -> Data:
        """Read or list the images, bring their files to this machine, and divide them.

        Raises:
            ValueError: a file is missing or damaged or cannot be copied, or the split asks for more images than there
                are.
        """
        data = self.survey()
        data.source.fetch()
        return data

    def survey(self) -> Data:
        """Divide the images as :meth:`load` does, to be counted and a few looked at, where their files are.

        Raises:
            ValueError: a file is missing or damaged, the source has other classes or annotations than the data set
                says, or the split asks for more images than there are.
        """
        source = self.read_source()
        told, found = _content(self.num_classes, self), _content(len(source.classes), source)
        if told != found:
            raise ValueError(f"{type(self).__name__} must have a source with {told}, found {found}")
        parts = self.split.divide(source)
        return Data(
            source=source,
            train=Subset(source, parts.train),
            teacher_train=Subset(source, parts.teacher_train),
            validation=None if parts.validation is None else Subset(source, parts.validation),
            test=Subset(source, parts.test),
            image_shape=self.image_shape,
            mean=self.mean,
            std=self.std,
            transforms=self.transforms,
            protocol=self.split.protocol,
        )

    @abstractmethod
    def read_source(self) -> Source:
        """Return all images: in memory, or as a list of files that are fetched when asked."""

    def _try_augmentation(self) -> None:
        """Send a black image through, so that a crop that is too large shows before anything starts."""
        images = torch.zeros((1, *self.image_shape), dtype=torch.uint8)
        for place, transform in enumerate(self.transforms):
            try:
                draws = torch.full((1, transform.num_draws), 0.5, dtype=torch.float64)
                if self.annotation is None:
                    images = transform(images, draws)
                else:
                    blank = self.annotation.blank(*images.shape[2:])
                    images = transform.together(Sample(images[0], blank), draws[0]).image[None]
            except Exception as error:  # torchvision's transforms raise TypeError, RuntimeError and others
                raise ValueError(
                    f"augment[{place}] ({type(transform).__name__}) cannot take images of shape "
                    f"{list(images.shape[1:])}: {error}"
                ) from error


def _content(num_classes: int, annotated: Dataset | Source) -> str:
    """Return how many classes there are, and of what, in words."""
    kind = annotated.annotation
    return f"{num_classes} classes and annotation {None if kind is None else kind.__name__}"


def _per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one value a channel: the values given, or the one value repeated."""
    if len(values) not in (1, channels):
        raise ValueError(f"{name} must have 1 or {channels} values, one a channel, in 0..1, found {list(values)}")
    return tuple(float(value) for value in values) * (channels // len(values))
