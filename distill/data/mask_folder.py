"""Anyone's images with masks: a folder of images, and one of masks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from distill.data.annotated_dataset import open_root
from distill.data.annotation.mask import IGNORE
from distill.data.canvas import Fit
from distill.data.decoding import is_image
from distill.data.mask_source import values_of
from distill.data.pairing import pair_files
from distill.data.roots import Root
from distill.data.segmentation_dataset import Pairs, SegmentationDataset
from distill.data.split import Split
from distill.data.transforms.base import Transform

_PARTS = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))
_MASKS = ("masks", "annotations")

_logger = logging.getLogger(__name__)


class MaskFolder(SegmentationDataset):
    """Image files, and for each a mask of the same name: a PNG of class indices.

    ``root`` holds ``images/`` and ``masks/``, or a folder for each part in which they are, or they hold a folder for
    each part, as ADE20K has it. Which parts there are decides who sees which images:

    ======================== ============================================================================
    ``train/ val/ test/``    those; ``split.validation`` and ``split.test`` are not used
    ``train/`` and one other the other is the official test part, validation is held out of ``train/``
    ``train/``, or no part   validation and test are held out
    ======================== ============================================================================

    ``masks`` may be called ``annotations``, ``train`` ``training``, ``val`` ``valid`` or ``validation``, and ``test``
    ``testing``. A mask of another size than its image, or with a value that is no class, is named when it is read.

    Args:
        classes: the classes' names in the order of their indices, the background's among them if there is one.
        ignore_index: what masks hold where the class is not known; ``None``: it is known everywhere.
        root: the folder, a path or a URI, from which its files are copied when loading. Environment variables are
            expanded; default: the folder that ``DISTILLERY_DATA`` names.
        archive: name of a tar or zip in ``root`` that holds the files, unpacked into the cache when first needed.
        size: of the images as the models see them: height and width in pixels, or one number for both.
        fit: how evaluation brings an image there: ``pad``: as far as it fits, black and unknown on the right and
            below, which is what ``augment`` by default scales; ``stretch``; or ``crop``: the middle of an image that
            covers it.
        channels: 3 for colour, 1 for grey; files are converted.
        num_threads: how many images are decoded at once.
        split: who sees which images.
        augment: default: a random scale of 0.5 to 2 of what fits into ``size``, a random window of it, and a mirror
            image half the time.
        mean: of each channel, in 0..1; default: ImageNet's.
        std: of each channel, in 0..1; default: ImageNet's.
    """

    def __init__(
        self,
        *,
        classes: Sequence[str],
        ignore_index: int | None = IGNORE,
        root: str | None = None,
        archive: str | None = None,
        size: int | Sequence[int] = 256,
        fit: Fit = "pad",
        channels: Literal[1, 3] = 3,
        num_threads: int = 4,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if not 2 <= len(classes) <= IGNORE:
            raise ValueError(f"classes must be from 2 to {IGNORE} names, found {len(classes)}")
        twice = [name for name, times in Counter(classes).items() if times > 1]
        if twice:
            raise ValueError(f"classes must be names that differ, found {', '.join(map(repr, twice))} more than once")
        if ignore_index is not None and not len(classes) <= ignore_index <= IGNORE:
            raise ValueError(
                f"ignore_index must be no class's index, {len(classes)} to {IGNORE}, or null, found {ignore_index}"
            )
        folder = open_root(root, archive)
        self.parts = _find_parts(folder)
        super().__init__(
            root=folder,
            classes=classes,
            values=values_of(range(len(classes)), () if ignore_index is None else (ignore_index,)),
            size=size,
            fit=fit,
            channels=channels,
            num_threads=num_threads,
            split=split,
            augment=augment,
            mean=mean,
            std=std,
        )

    def list_parts(self) -> list[Pairs]:
        return [
            pair_files(self.root, images, masks, image_key=_image_key, mask_key=_mask_key)
            for images, masks in self.parts
        ]


def _find_parts(root: Root) -> list[tuple[str, str]]:
    """Return the folders of images and masks of each part.

    Raises:
        ValueError: there are none, or none to train on.
    """
    top = root.folders()
    if "images" in top:
        masks = _masks(root, "", top)
        names = _named(root, root.folders("images"), _PARTS)
        return [(f"images/{name}", f"{masks}/{name}") for name in names] or [("images", masks)]
    names = _named(root, top, _PARTS)
    if not names:
        raise ValueError(
            f"root must hold images/ and masks/, or train/ val/ test/ with them, found {top or 'no folder'} in "
            f"{root.location()}"
        )
    parts = []
    for name in names:
        folders = root.folders(name)
        if "images" not in folders:
            raise ValueError(f"{root.location(name)} must hold images/ and masks/, found {folders or 'no folder'}")
        parts.append((f"{name}/images", f"{name}/{_masks(root, name, folders)}"))
    return parts


def _masks(root: Root, name: str, folders: Sequence[str]) -> str:
    found = next((each for each in _MASKS if each in folders), None)
    if found is None:
        raise ValueError(f"{root.location(name)} must hold masks/ beside images/, found {folders}")
    return found


def _named(root: Root, folders: Sequence[str], parts: Sequence[Sequence[str]]) -> list[str]:
    """Return the folders of training, validation and test, in order."""
    found = [next((name for name in names if name in folders), None) for names in parts]
    named = [name for name in found if name is not None]
    if named and found[0] is None:
        raise ValueError(f"root must hold train/ beside {named[0]}/, found none in {root.location()}")
    others = [name for name in folders if name not in named]
    if named and others:
        _logger.warning(
            "MaskFolder reads %s of %s and leaves out %s", ", ".join(named), root.location(), ", ".join(others)
        )
    return named


def _image_key(name: str) -> str | None:
    return name.rpartition(".")[0] if is_image(name) else None


def _mask_key(name: str) -> str | None:
    return name.rpartition(".")[0] if is_image(name) and name.lower().endswith(".png") else None
