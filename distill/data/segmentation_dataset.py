"""What all data sets share whose images have masks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

from distill.data.annotated_dataset import AnnotatedDataset
from distill.data.annotation import Mask
from distill.data.canvas import Fit
from distill.data.mask_source import MaskSource, Values
from distill.data.roots import ListedFile, Root
from distill.data.split import Split
from distill.data.transforms import RandomHorizontalFlip, RandomScaleCrop
from distill.data.transforms.base import Transform


class Pairs(NamedTuple):
    """The images of one part, and the mask of each."""

    images: list[ListedFile]
    masks: list[ListedFile]


class SegmentationDataset(AnnotatedDataset):
    """Images and their masks: PNGs of class indices.

    Args:
        root: the folder that holds the files.
        classes: the classes' names, by label.
        values: what the values in the masks' files stand for.
        size: of the canvas.
        fit: how images are brought to it.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
        split: who sees which images.
        augment: ``None``: a random scale of 0.5 to 2 of what fits into the canvas, a random window of it, and a mirror
            image half the time.
        mean: of each channel, in 0..1; ``None``: ImageNet's.
        std: of each channel, in 0..1; ``None``: ImageNet's.
    """

    annotation = Mask

    def __init__(
        self,
        *,
        root: Root,
        classes: Sequence[str],
        values: Values,
        size: int | Sequence[int],
        fit: Fit,
        channels: Literal[1, 3],
        num_threads: int,
        split: Split | None,
        augment: Sequence[Transform] | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        self.classes = tuple(classes)
        self.values = values
        super().__init__(
            root=root,
            num_classes=len(self.classes),
            size=size,
            fit=fit,
            fits=("stretch", "pad", "crop"),
            channels=channels,
            num_threads=num_threads,
            split=split,
            augment=augment
            if augment is not None
            else [RandomScaleCrop(size, relative_to="size"), RandomHorizontalFlip()],
            mean=mean,
            std=std,
        )

    def read_source(self) -> MaskSource:
        parts = self.list_parts()
        sizes = [len(part.images) for part in parts]
        return MaskSource(
            self.root,
            [image for part in parts for image in part.images],
            self.classes,
            masks=[mask for part in parts for mask in part.masks],
            values=self.values,
            num_validation=sizes[1] if len(sizes) == 3 else 0,
            num_test=sizes[-1] if len(sizes) > 1 else 0,
            canvas=self.canvas,
            channels=self.channels,
            num_threads=self.num_threads,
        )

    @abstractmethod
    def list_parts(self) -> list[Pairs]:
        """Return the official training part; beside it the test part, or validation and test part, if there are any.

        Raises:
            ValueError: an image has no mask, or a part no image.
        """
