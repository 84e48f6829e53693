"""The contract of a root: what a data set may ask of the folder that holds its files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from distill.data.roots.listed_file import ListedFile


class Root(ABC):
    """The folder that holds a data set's files, wherever it is.

    Listing and looking are cheap, and what a data set does when it is constructed; :meth:`fetch` is for loading.
    All names are relative to the root, with ``/``; ``""`` is the root itself.
    """

    @abstractmethod
    def location(self, name: str = "") -> str:
        """Return what messages call a file, or the root itself."""

    @property
    @abstractmethod
    def downloads_to(self) -> Path | None:
        """The folder that missing files can be downloaded into; ``None`` where there is none."""

    @abstractmethod
    def find(self, *names: str) -> ListedFile | None:
        """Return the first of these files that exists."""

    @abstractmethod
    def folders(self, name: str = "") -> list[str]:
        """Return the sorted names of the folders in a folder; none where it does not exist."""

    @abstractmethod
    def files(self, name: str = "") -> list[ListedFile]:
        """Return all files below a folder, at any depth, in no order; none where it does not exist."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading, wherever it is: for a look, not for all of a data set."""

    @abstractmethod
    def fetch(self, files: Sequence[ListedFile]) -> Path:
        """Return a folder of this machine that holds these files under their names, until this process ends.

        Raises:
            ValueError: they cannot be copied here.
        """
