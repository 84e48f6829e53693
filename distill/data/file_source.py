"""A source that decodes image files when they are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from torch import Tensor

from distill.data.decoding import decode_image
from distill.data.roots import ListedFile, LocalRoot, Root
from distill.data.source import Indices, Source, View
from distill.late import v2


class FileSource(Source):
    """Image files, decoded in threads when they are read.

    Args:
        root: the folder that holds the files.
        files: one an image.
        labels: ``[image]``, int64.
        classes: the classes' names, by label.
        num_validation: how many images before the test part are the own validation part.
        num_test: how many images at the end are the own test part.
        channels: 3 for colour, 1 for grey; files are converted.
        size: side of the square that :meth:`fit` cuts out of the middle.
        resize: shorter side of the image before that, in pixels.
        num_threads: how many images are decoded at once.
    """

    def __init__(
        self,
        root: Root,
        files: Sequence[ListedFile],
        labels: Indices,
        classes: Sequence[str],
        *,
        num_validation: int,
        num_test: int,
        channels: Literal[1, 3],
        size: int,
        resize: int,
        num_threads: int,
    ) -> None:
        super().__init__(labels, classes, num_validation=num_validation, num_test=num_test)
        self.root = root
        self.files = files
        self.channels = channels
        self.size = size
        self.resize = resize
        self.num_threads = num_threads

    @property
    def names(self) -> list[str]:
        """The files' names, by position."""
        return [file.name for file in self.files]

    @property
    def differs_in_size(self) -> bool:
        return True

    def fetch(self) -> None:
        self.root = LocalRoot(self.root.fetch(self.files))

    def read(self, indices: Indices) -> list[Tensor]:
        return self.read_views(indices, lambda image, place: image)

    def read_views(self, indices: Indices, view: View) -> list[Tensor]:
        def make(place: int) -> Tensor:
            return view(decode_image(self.root, self.files[indices[place]].name, self.channels), place)

        with ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode") as pool:
            return list(pool.map(make, range(len(indices))))

    def fit(self, image: Tensor) -> Tensor:
        """Resize the shorter side to ``resize`` (bilinear, antialiased) and cut out the middle square."""
        resized = v2.functional.resize(image, [self.resize], antialias=True)
        fitted: Tensor = v2.functional.center_crop(resized, [self.size, self.size])
        return fitted

    def digest(self) -> bytes:
        """Digest names, file sizes, labels and class names: reading every pixel would take hours on large sets.

        A file replaced by another of the same name and size goes unnoticed.
        """
        content = hashlib.sha256(repr((self.classes, self.channels, self.size, self.resize)).encode())
        for file in self.files:
            content.update(f"{file.name}\0{file.size}\0".encode())
        content.update(self.labels.astype("<i8").data)
        return content.digest()
