"""What all data sets share whose images have objects with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from distill.data.annotated_dataset import AnnotatedDataset
from distill.data.annotation import Boxes
from distill.data.box_source import BoxSource
from distill.data.canvas import Fit
from distill.data.object_records import ObjectRecords
from distill.data.roots import ListedFile, Root
from distill.data.split import Split
from distill.data.transforms import RandomHorizontalFlip
from distill.data.transforms.base import Transform

BACKGROUND = "__background__"
"""The class of label 0: of what is no object. Models count it among their classes, as torchvision's do."""


class DetectionDataset(AnnotatedDataset):
    """Images and the boxes of their objects.

    Args:
        root: the folder that holds the files.
        names: of the classes of objects, from label 1 on.
        size: of the canvas.
        fit: how images are brought to it.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
        split: who sees which images.
        augment: ``None``: a mirror image half the time.
        mean: of each channel, in 0..1; ``None``: ImageNet's.
        std: of each channel, in 0..1; ``None``: ImageNet's.
    """

    annotation = Boxes

    def __init__(
        self,
        *,
        root: Root,
        names: Sequence[str],
        size: int | Sequence[int],
        fit: Fit,
        channels: Literal[1, 3],
        num_threads: int,
        split: Split | None,
        augment: Sequence[Transform] | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        if not names or len(set(names)) < len(names) or BACKGROUND in names:
            raise ValueError(
                f"classes must be names of objects that differ, at least one, without {BACKGROUND!r}, found "
                f"{list(names)[:5]}"
            )
        self.classes = (BACKGROUND, *names)
        super().__init__(
            root=root,
            num_classes=len(self.classes),
            size=size,
            fit=fit,
            fits=("stretch", "pad"),
            channels=channels,
            num_threads=num_threads,
            split=split,
            augment=augment if augment is not None else [RandomHorizontalFlip()],
            mean=mean,
            std=std,
        )

    def source_of(self, parts: Sequence[Sequence[ListedFile]], records: ObjectRecords) -> BoxSource:
        """Return the source of the images of all parts.

        Args:
            parts: the images of the official training part; beside it the test part, or validation and test part.
            records: of these images, in this order.
        """
        sizes = [len(part) for part in parts]
        return BoxSource(
            self.root,
            [image for part in parts for image in part],
            self.classes,
            records=records,
            num_validation=sizes[1] if len(sizes) == 3 else 0,
            num_test=sizes[-1] if len(sizes) > 1 else 0,
            canvas=self.canvas,
            channels=self.channels,
            num_threads=self.num_threads,
        )
