"""Pascal VOC's detection data, and others in that form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from distill.data.annotated_dataset import open_root
from distill.data.box_source import BoxSource
from distill.data.decoding import is_image
from distill.data.detection_dataset import DetectionDataset
from distill.data.roots import ListedFile, Root
from distill.data.split import Split
from distill.data.transforms.base import Transform
from distill.data.voc_lists import check_apart, find_files, find_prefix, read_list, stem
from distill.data.voc_records import VOCRecords, find_names


class VOCDetection(DetectionDataset):
    """Images with an XML file for each, as Pascal VOC has them (Everingham et al. 2010, IJCV 88, 303-338).

    The folders are ``JPEGImages/``, ``Annotations/`` and ``ImageSets/Main/``, in ``root`` itself, in ``VOC<year>/`` or
    in ``VOCdevkit/VOC<year>/``. The lists in the last one decide who sees which images:

    ============================== ==================================================================================
    ``train val test``             those; ``split.validation`` and ``split.test`` are not used
    ``train`` and one other        the other is the official test part, validation is held out of ``train``
    ``trainval test``              likewise, where there is no ``train``
    one list, or none              validation and test are held out of it, or of all that have an XML file
    ============================== ==================================================================================

    Pixels are numbered from 1 in these files: minima are taken less one, so that boxes start at 0. Objects that are
    marked ``difficult`` are ignored. Boxes are cut off at their image's border and left out if nothing is left of
    them; a warning says how many.

    Args:
        classes: names of the classes, from label 1 on, objects of others are left out; default: all that occur,
            sorted. To find them, all XML files of the lists are read each time the data set is constructed: half a
            millisecond each where they are local, far more behind a URI, where naming the classes is better.
        year: of the challenge, where folders are named by it.
        root: the folder, a path or a URI, from which its files are copied when loading. Environment variables are
            expanded; default: the folder that ``DISTILLERY_DATA`` names.
        archive: name of a tar or zip in ``root`` that holds the files, unpacked into the cache when first needed.
        size: of the images as the models see them: height and width in pixels, or one number for both.
        fit: how an image is brought there: ``stretch``, or ``pad``: as far as it fits, black on the right and below.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many files are read at once.
        split: who sees which images.
        augment: default: a mirror image half the time.
        mean: of each channel, in 0..1; default: ImageNet's.
        std: of each channel, in 0..1; default: ImageNet's.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str] | None = None,
        year: str = "2007",
        root: str | None = None,
        archive: str | None = None,
        size: int | Sequence[int] = 320,
        fit: Literal["stretch", "pad"] = "stretch",
        channels: Literal[1, 3] = 3,
        num_threads: int = 4,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        folder = open_root(root, archive)
        self.prefix = find_prefix(folder, year, "Annotations")
        self.parts = _read_parts(folder, self.prefix)
        if classes is None:
            classes = find_names(folder, self._annotations(folder), num_threads)
        super().__init__(
            root=folder,
            names=classes,
            size=size,
            fit=fit,
            channels=channels,
            num_threads=num_threads,
            split=split,
            augment=augment,
            mean=mean,
            std=std,
        )
        sizes = [len(part) for part in self.parts]
        self.split.check(
            sum(sizes),
            num_validation=sizes[1] if len(sizes) == 3 else 0,
            num_test=sizes[-1] if len(sizes) > 1 else 0,
        )

    def read_source(self) -> BoxSource:
        images = [find_files(self.root, f"{self.prefix}JPEGImages", part, is_image) for part in self.parts]
        labels = {name: label for label, name in enumerate(self.classes) if label}
        return self.source_of(images, VOCRecords(self._annotations(self.root), labels))

    def _annotations(self, root: Root) -> list[ListedFile]:
        names = [name for part in self.parts for name in part]
        return find_files(root, f"{self.prefix}Annotations", names, _is_xml)


def _read_parts(root: Root, prefix: str) -> list[list[str]]:
    """Return the names of the images of each part."""
    folder = f"{prefix}ImageSets/Main"
    names = [f"{folder}/{name}.txt" for name in ("train", "val", "test")]
    found = [name for name in names if root.find(name) is not None]
    everything = f"{folder}/trainval.txt"
    if names[0] not in found and root.find(everything) is not None:
        found = [everything, *(name for name in found if name == names[2])]
    elif found and names[0] not in found:
        raise ValueError(f"{root.location(folder)} must hold train.txt or trainval.txt, found neither")
    if found:
        parts = [(name, read_list(root, name)) for name in found]
        check_apart(root, parts)
        return [images for _, images in parts]
    annotations = f"{prefix}Annotations"
    return [sorted(stem(annotations, file) for file in root.files(annotations) if _is_xml(file.name))]


def _is_xml(name: str) -> bool:
    return name.lower().endswith(".xml") and not name.rpartition("/")[2].startswith(".")
