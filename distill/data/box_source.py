"""A source of images whose objects have boxes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch

from distill.data.annotated_source import AnnotatedSource
from distill.data.annotation import Boxes
from distill.data.annotation.boxes import MIN_SIDE
from distill.data.canvas import Canvas
from distill.data.object_record import ObjectRecord
from distill.data.object_records import ObjectRecords
from distill.data.roots import ListedFile, Root

_logger = logging.getLogger(__name__)


class BoxSource(AnnotatedSource):
    """Image files, each with any number of objects.

    Boxes are cut off at the image's border, and those with a side below one pixel then are left out. When all records
    are there they are read once, kept, and what is cut off and left out is counted in one warning.

    Args:
        root: the folder that holds the files.
        files: one an image.
        classes: the classes' names, by label; the first is the background.
        records: what is written of each image's objects.
        num_validation: how many images before the test part are the own validation part.
        num_test: how many images at the end are the own test part.
        canvas: the size that images are brought to.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
    """

    annotation = Boxes

    def __init__(
        self,
        root: Root,
        files: Sequence[ListedFile],
        classes: Sequence[str],
        *,
        records: ObjectRecords,
        num_validation: int,
        num_test: int,
        canvas: Canvas,
        channels: Literal[1, 3],
        num_threads: int,
    ) -> None:
        super().__init__(
            root,
            files,
            classes,
            num_validation=num_validation,
            num_test=num_test,
            canvas=canvas,
            channels=channels,
            num_threads=num_threads,
        )
        self.records = records
        self._read: list[ObjectRecord] | None = None

    @property
    def annotation_files(self) -> Sequence[ListedFile]:
        return self.records.files

    def annotation_values(self) -> Iterable[bytes]:
        return self.records.values()

    def fetch(self) -> None:
        super().fetch()
        with self._pool() as pool:
            self._read = list(pool.map(lambda index: self.records.read(self.root, index), range(len(self))))
        self._warn(self._read)

    def annotate(self, index: int, height: int, width: int) -> Boxes:
        record = self.records.read(self.root, index) if self._read is None else self._read[index]
        if record.size is not None and record.size != (width, height):
            raise ValueError(
                f"image {self.root.location(self.files[index].name)} must have the size that its annotation says, "
                f"{record.size[0]}x{record.size[1]}, found {width}x{height}"
            )
        boxes = Boxes(
            torch.from_numpy(record.boxes),
            torch.from_numpy(record.labels),
            torch.from_numpy(record.ignored),
            height,
            width,
        )
        return boxes.window(0, 0, height, width)

    def _warn(self, records: Sequence[ObjectRecord]) -> None:
        """Say in one warning what is cut off and left out, and in another which classes have no object."""
        labels = np.concatenate([record.labels for record in records])
        used = set(np.unique(labels).tolist())
        unused = [name for label, name in enumerate(self.classes) if label and label not in used]
        if unused:
            _logger.warning("in %s there is no object of %s", self.root.location(), ", ".join(unused))
        num_cut, num_small = _irregular(records)
        num_others = sum(record.num_others for record in records)
        if num_cut or num_small or num_others:
            _logger.warning(
                "of %s boxes in %s %s reach beyond their image and are cut off, %s are smaller than a pixel or outside "
                "and are left out, and so are %s of other classes",
                f"{len(labels) + num_others:,}",
                self.root.location(),
                *(f"{number:,}" for number in (num_cut, num_small, num_others)),
            )


def _irregular(records: Sequence[ObjectRecord]) -> tuple[int, int]:
    """Return how many boxes are cut off, and how many are too small then."""
    boxes = np.concatenate([record.boxes for record in records])  # [object, 4]
    sizes = np.array([record.size or (np.inf, np.inf) for record in records], dtype=np.float32)  # [image, 2]
    bounds = np.repeat(np.tile(sizes, 2), [len(record.labels) for record in records], axis=0)
    cut = boxes.clip(0, bounds)
    is_small = ((cut[:, 2:] - cut[:, :2]) < MIN_SIDE).any(axis=1)
    is_cut = (cut != boxes).any(axis=1) & ~is_small
    return int(is_cut.sum()), int(is_small.sum())
