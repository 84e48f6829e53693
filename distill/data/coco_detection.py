"""COCO's detection data, and others in that form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from distill.data.annotated_dataset import open_root
from distill.data.box_source import BoxSource
from distill.data.coco_file import COCOFile
from distill.data.coco_records import COCORecords
from distill.data.detection_dataset import DetectionDataset
from distill.data.roots import ListedFile, LocalRoot, Root
from distill.data.split import Split
from distill.data.transforms.base import Transform
from distill.schema import nearest, suggestion

MAX_NAMED = 20
"""Categories that a message names at most."""
_PARTS = ("train", "val", "test")
_EXPORTED = {"train": "train", "val": "valid", "test": "test"}


class COCODetection(DetectionDataset):
    """Images with one JSON file a part, as COCO has them (Lin et al. 2014, arXiv:1405.0312).

    What ``root`` holds, unless ``annotations`` and ``images`` say otherwise:

    ==================== =============================================== ============================================
    form                 annotations                                     images
    ==================== =============================================== ============================================
    COCO's own           ``annotations/instances_<part><year>.json``     ``<part><year>/``
    exported             ``train valid test/_annotations.coco.json``     the same folder
    ==================== =============================================== ============================================

    With train, validation and test part those are used. Beside ``train`` one other, COCO's ``val`` for instance, is the
    official test part, and validation is held out of ``train``; with ``train`` alone, the test too.

    Labels count from 1 in the order of the categories' ids, which may have gaps; torchvision's models that were trained
    on COCO keep the gaps and have 91 classes. Crowds are ignored. Boxes are cut off at their image's border and left
    out if nothing is left of them; a warning says how many. Images without objects are kept.

    Args:
        classes: names of the classes, from label 1 on, objects of others are left out; default: all categories. They
            are read from the smallest of the files each time the data set is constructed.
        annotations: the file of each part, ``train`` and, if there are, ``val`` and ``test``, relative to ``root``.
        images: the folder of each part's images, relative to ``root``.
        year: that COCO's own files are named by.
        root: the folder, a path or a URI, from which its files are copied when loading. Environment variables are
            expanded; default: the folder that ``DISTILLERY_DATA`` names.
        archive: name of a tar or zip in ``root`` that holds the files, unpacked into the cache when first needed.
        size: of the images as the models see them: height and width in pixels, or one number for both.
        fit: how an image is brought there: ``stretch``, or ``pad``: as far as it fits, black on the right and below.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
        split: who sees which images.
        augment: default: a mirror image half the time.
        mean: of each channel, in 0..1; default: ImageNet's.
        std: of each channel, in 0..1; default: ImageNet's.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str] | None = None,
        annotations: Mapping[str, str] | None = None,
        images: Mapping[str, str] | None = None,
        year: str = "2017",
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
        self.are_named = classes is not None
        self.parts = _find_parts(folder, annotations, images, year)
        if classes is None:
            smallest = min((file for file, _ in self.parts), key=lambda file: file.size)
            classes = list(COCOFile(folder, smallest.name).names.values())
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

    def read_source(self) -> BoxSource:
        local = LocalRoot(self.root.fetch([file for file, _ in self.parts]))
        labels = {name: label for label, name in enumerate(self.classes) if label}
        parts, records = [], []
        for file, folder in self.parts:
            content = COCOFile(local, file.name)
            self._check_classes(content)
            parts.append(_find_images(self.root, folder, list(content.images.values())))
            records += content.records(labels)
        _check_apart(self.root, [file for file, _ in self.parts], parts)
        return self.source_of(parts, COCORecords(records))

    def _check_classes(self, content: COCOFile) -> None:
        found = set(content.names.values())
        missing, unknown = sorted(set(self.classes[1:]) - found), sorted(found - set(self.classes))
        if self.are_named and missing:
            near = nearest(missing[0], found)
            valid = (
                "" if near else f"; valid: {', '.join(sorted(found)[:MAX_NAMED])}{', ...' * (len(found) > MAX_NAMED)}"
            )
            raise ValueError(
                f"classes must be categories of {content.location}, found {missing[0]!r}{valid}.{suggestion(near)}"
            )
        if missing or (unknown and not self.are_named):
            raise ValueError(
                f"{content.location} must have the categories of the other parts, missing {missing[:5] or 'none'}, "
                f"unknown {unknown[:5] or 'none'}; option classes chooses some"
            )


def _find_parts(
    root: Root, annotations: Mapping[str, str] | None, images: Mapping[str, str] | None, year: str
) -> list[tuple[ListedFile, str]]:
    """Return annotations and folder of images of each part, in order.

    Raises:
        ValueError: there is nothing to train on, or an option names what is not there.
    """
    if (annotations is None) != (images is None):
        given, other = ("images", "annotations") if annotations is None else ("annotations", "images")
        raise ValueError(f"{given} must stand beside {other}, each naming the same parts, found no {other}")
    if annotations is None or images is None:
        return _look_for_parts(root, year)
    if set(annotations) != set(images) or "train" not in annotations or not set(annotations) <= set(_PARTS):
        raise ValueError(
            f"annotations must name the parts train and, where there are, val and test, and images the same, found "
            f"{sorted(annotations)} and {sorted(images)}"
        )
    found = []
    for part in _PARTS:
        if part in annotations:
            file = root.find(annotations[part])
            if file is None:
                raise ValueError(
                    f"annotations.{part} must be a file in root, found no {root.location(annotations[part])}"
                )
            found.append((file, "/".join(name for name in images[part].split("/") if name not in ("", "."))))
    return found


def _look_for_parts(root: Root, year: str) -> list[tuple[ListedFile, str]]:
    own = {part: (f"annotations/instances_{part}{year}.json", f"{part}{year}") for part in _PARTS}
    exported = {part: (f"{folder}/_annotations.coco.json", folder) for part, folder in _EXPORTED.items()}
    for form in (own, exported):
        files = [(root.find(file), folder) for file, folder in form.values()]
        found = [(file, folder) for file, folder in files if file is not None]
        if found and files[0][0] is not None:
            return found
    raise ValueError(
        f"root must hold {own['train'][0]} or {exported['train'][0]}, found neither in {root.location()}; options "
        "annotations and images name others"
    )


def _find_images(root: Root, folder: str, names: Sequence[str]) -> list[ListedFile]:
    """Return the files of a part's images.

    Raises:
        ValueError: one is missing.
    """
    prefix = f"{folder}/" if folder else ""
    found = {file.name: file for file in root.files(folder)}
    missing = [name for name in names if f"{prefix}{name}" not in found]
    if missing:
        raise ValueError(
            f"{root.location(folder)} must hold the images of its annotations, found no {', '.join(missing[:3])}"
            f"{f' and {len(missing) - 3:,} more' if len(missing) > 3 else ''}"
        )
    return [found[f"{prefix}{name}"] for name in names]


def _check_apart(root: Root, annotations: Sequence[ListedFile], parts: Sequence[Sequence[ListedFile]]) -> None:
    """Raise ``ValueError`` where two parts share an image: what is trained on must not be what is measured on."""
    seen: dict[str, str] = {}
    for file, images in zip(annotations, parts, strict=True):
        for image in images:
            if image.name in seen:
                raise ValueError(
                    f"{root.location(seen[image.name])} and {file.name} must not share images, found {image.name} in "
                    "both"
                )
            seen[image.name] = file.name
