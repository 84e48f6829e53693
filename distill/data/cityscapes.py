"""Cityscapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from distill.data.annotated_dataset import open_root
from distill.data.annotation.mask import IGNORE
from distill.data.canvas import Fit
from distill.data.mask_source import values_of
from distill.data.pairing import pair_files
from distill.data.segmentation_dataset import Pairs, SegmentationDataset
from distill.data.split import Split
from distill.data.transforms.base import Transform

_IDS = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
_NUM_IDS = 34
_IMAGE = "_leftImg8bit.png"
_PARTS = ("train", "val")


class Cityscapes(SegmentationDataset):
    """Street scenes of 2048x1024 pixels from 50 cities, 19 classes (Cordts et al. 2016, arXiv:1604.01685).

    ``root`` holds ``leftImg8bit/<part>/<city>/*_leftImg8bit.png`` and
    ``gtFine/<part>/<city>/*_gtFine_labelIds.png``. ``train`` is for training, and validation is held out of it;
    ``val`` is the official test part, as papers report it: 2,975 and 500 images. The masks of ``test`` are not public.
    The other 15 kinds of places are unknown, as in the benchmark.

    Args:
        masks: which files hold the classes: ``labelIds``, which the download has, or ``labelTrainIds``, which
            Cityscapes' own scripts make of them.
        root: the folder, a path or a URI, from which its files are copied when loading. Environment variables are
            expanded; default: the folder that ``DISTILLERY_DATA`` names.
        archive: name of a tar or zip in ``root`` that holds both folders, unpacked into the cache when first needed.
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
        masks: Literal["labelIds", "labelTrainIds"] = "labelIds",
        root: str | None = None,
        archive: str | None = None,
        size: int | Sequence[int] = (512, 1024),
        fit: Fit = "pad",
        channels: Literal[1, 3] = 3,
        num_threads: int = 4,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if masks not in ("labelIds", "labelTrainIds"):
            raise ValueError(f"masks must be 'labelIds' or 'labelTrainIds', found {masks!r}")
        folder = open_root(root, archive)
        for name in ("leftImg8bit", "gtFine"):
            missing = [part for part in _PARTS if part not in folder.folders(name)]
            if missing:
                raise ValueError(f"root must hold {name}/{missing[0]}/, found none in {folder.location()}")
        self.masks = masks
        ids = list(_IDS.values()) if masks == "labelIds" else range(len(_IDS))
        super().__init__(
            root=folder,
            classes=list(_IDS),
            values=values_of(ids, (*range(_NUM_IDS), IGNORE) if masks == "labelIds" else (IGNORE,)),
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
        suffix = f"_gtFine_{self.masks}.png"
        return [
            pair_files(
                self.root,
                f"leftImg8bit/{part}",
                f"gtFine/{part}",
                image_key=lambda name: _key(name, _IMAGE),
                mask_key=lambda name: _key(name, suffix),
            )
            for part in _PARTS
        ]


def _key(name: str, suffix: str) -> str | None:
    return name.removesuffix(suffix) if name.endswith(suffix) else None
