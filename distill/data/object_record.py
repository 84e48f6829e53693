"""What a file says of one image's objects."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class ObjectRecord(NamedTuple):
    """The objects of an image as their file has them: boxes may leave the image, or have no size.

    Attributes:
        boxes: ``[object, 4]``, float32: left, top, right, bottom in pixels, from 0 at the image's border.
        labels: ``[object]``, int64, from 1.
        ignored: ``[object]``, bool: crowds and difficult objects.
        size: width and height of the image; ``None`` where the file does not say.
        num_others: objects of classes that are not asked for, left out.
    """

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]
    size: tuple[int, int] | None
    num_others: int

    @classmethod
    def of(
        cls, objects: list[tuple[list[float], int, bool]], *, size: tuple[int, int] | None, num_others: int
    ) -> ObjectRecord:
        """Gather box, label and ignored of several objects."""
        columns: list[Any] = [list(column) for column in zip(*objects, strict=True)] or [[], [], []]
        return cls(
            np.asarray(columns[0], dtype=np.float32).reshape(-1, 4),
            np.asarray(columns[1], dtype=np.int64),
            np.asarray(columns[2], dtype=np.bool_),
            size,
            num_others,
        )
