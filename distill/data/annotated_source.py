"""A source that decodes image files and what annotates them when they are read."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from torch import Tensor

from distill.data.annotation import Annotation, Sample
from distill.data.canvas import Canvas
from distill.data.decoding import decode_image
from distill.data.roots import ListedFile, LocalRoot, Root
from distill.data.source import Indices, SampleView, Source, View


class AnnotatedSource(Source):
    """Image files and what annotates them, decoded together, in threads, when they are read.

    Args:
        root: the folder that holds the files.
        files: one an image.
        classes: the classes' names, by label.
        num_validation: how many images before the test part are the own validation part.
        num_test: how many images at the end are the own test part.
        canvas: the size that :meth:`fit_sample` brings images to.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
    """

    def __init__(
        self,
        root: Root,
        files: Sequence[ListedFile],
        classes: Sequence[str],
        *,
        num_validation: int,
        num_test: int,
        canvas: Canvas,
        channels: Literal[1, 3],
        num_threads: int,
    ) -> None:
        stratum = np.zeros(len(files), dtype=np.int64)
        super().__init__(stratum, classes, num_validation=num_validation, num_test=num_test)
        self.root = root
        self.files = files
        self.canvas = canvas
        self.channels = channels
        self.num_threads = num_threads

    @property
    def names(self) -> list[str]:
        """The files' names, by position."""
        return [file.name for file in self.files]

    @property
    def differs_in_size(self) -> bool:
        return True

    def fetch(self) -> None:
        self.root = LocalRoot(self.root.fetch([*self.files, *self.annotation_files]))

    def read(self, indices: Indices) -> list[Tensor]:
        return self.read_views(indices, lambda image, place: image)

    def read_views(self, indices: Indices, view: View) -> list[Tensor]:
        with self._pool() as pool:
            return list(pool.map(lambda place: view(self._decode(int(indices[place])), place), range(len(indices))))

    def read_samples(self, indices: Indices, view: SampleView) -> list[Sample]:
        def make(place: int) -> Sample:
            index = int(indices[place])
            image = self._decode(index)
            return view(Sample(image, self.annotate(index, *image.shape[1:])), place)

        with self._pool() as pool:
            return list(pool.map(make, range(len(indices))))

    def fit(self, image: Tensor) -> Tensor:
        blank = self.blank(*image.shape[1:])
        return self.canvas.fitted(Sample(image, blank)).image

    def fit_sample(self, sample: Sample) -> Sample:
        return self.canvas.fitted(sample)

    def digest(self) -> bytes:
        """Digest names and sizes of all files, class names, and what decides how images look.

        A file replaced by another of the same name and size goes unnoticed.
        """
        content = hashlib.sha256(repr((self.classes, self.channels, self.canvas)).encode())
        for file in (*self.files, *self.annotation_files):
            content.update(f"{file.name}\0{file.size}\0".encode())
        for value in self.annotation_values():
            content.update(value)
        return content.digest()

    @property
    @abstractmethod
    def annotation_files(self) -> Sequence[ListedFile]:
        """The files below ``root``, beside the images, that are needed to annotate them."""

    @abstractmethod
    def annotation_values(self) -> Iterable[bytes]:
        """Yield what else the annotations follow from, to be digested."""

    @abstractmethod
    def annotate(self, index: int, height: int, width: int) -> Annotation:
        """Return the annotation of one image.

        Args:
            index: of the image.
            height: of the image as it was decoded.
            width: likewise.

        Raises:
            ValueError: the annotation is damaged, or is of an image of another size; its file is named.
        """

    def blank(self, height: int, width: int) -> Annotation:
        """Return the annotation of an image of which nothing is known."""
        assert self.annotation is not None
        return self.annotation.blank(height, width)

    def _decode(self, index: int) -> Tensor:
        return decode_image(self.root, self.files[index].name, self.channels)

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.num_threads, thread_name_prefix="decode")
