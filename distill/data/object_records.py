"""The contract of what is written of all images' objects: a file for each image, or one for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from distill.data.object_record import ObjectRecord
from distill.data.roots import ListedFile, Root


class ObjectRecords(ABC):
    """What is written of each image's objects.

    Attributes:
        files: that have to be there, beside the images, to be read.
    """

    files: Sequence[ListedFile] = ()

    @abstractmethod
    def values(self) -> Iterable[bytes]:
        """Yield what else the records follow from, to be digested."""

    @abstractmethod
    def read(self, root: Root, index: int) -> ObjectRecord:
        """Return what is written of one image.

        Args:
            root: the folder that holds the files.
            index: of the image.

        Raises:
            ValueError: its file is damaged; it is named.
        """
