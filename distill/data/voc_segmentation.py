"""Pascal VOC's segmentation data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Literal

from distill.data.annotated_dataset import open_root
from distill.data.canvas import Fit
from distill.data.decoding import is_image
from distill.data.mask_source import values_of
from distill.data.roots import Root
from distill.data.segmentation_dataset import Pairs, SegmentationDataset
from distill.data.split import Split
from distill.data.transforms.base import Transform
from distill.data.voc_lists import check_apart, find_files, find_prefix, read_list

CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

_LISTS = {"train": ("train.txt",), "trainaug": ("trainaug.txt", "train_aug.txt")}
_FOLDERS = {"train": "SegmentationClass", "trainaug": "SegmentationClassAug"}


class VOCSegmentation(SegmentationDataset):
    """20 kinds of objects and background, with masks of every pixel (Everingham et al. 2010, IJCV 88, 303-338).

    The folders are ``JPEGImages/``, ``SegmentationClass/`` and ``ImageSets/Segmentation/``, in ``root`` itself, in
    ``VOC<year>/`` or in ``VOCdevkit/VOC<year>/``. ``train.txt`` is for training, and validation is held out of it;
    ``val.txt`` is the official test part, as papers report it: 1,464 and 1,449 images in 2012. The borders of objects
    are unknown.

    Args:
        image_set: ``train``, or ``trainaug``: 10,582 images, most with the masks of Hariharan et al. 2011 (ICCV,
            doi:10.1109/ICCV.2011.6126343), by the list ``trainaug.txt`` and the masks in ``SegmentationClassAug/``.
        year: of the challenge.
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
        image_set: Literal["train", "trainaug"] = "train",
        year: str = "2012",
        root: str | None = None,
        archive: str | None = None,
        size: int | Sequence[int] = 512,
        fit: Fit = "pad",
        channels: Literal[1, 3] = 3,
        num_threads: int = 4,
        split: Split | None = None,
        augment: Sequence[Transform] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if image_set not in _LISTS:
            raise ValueError(f"image_set must be 'train' or 'trainaug', found {image_set!r}")
        folder = open_root(root, archive)
        self.prefix = find_prefix(folder, year, _FOLDERS[image_set])
        self.parts = _read_parts(folder, f"{self.prefix}ImageSets/Segmentation", image_set)
        self.image_set = image_set
        super().__init__(
            root=folder,
            classes=CLASSES,
            values=values_of(range(len(CLASSES))),
            size=size,
            fit=fit,
            channels=channels,
            num_threads=num_threads,
            split=split,
            augment=augment,
            mean=mean,
            std=std,
        )
        self.split.check(sum(map(len, self.parts)), num_test=len(self.parts[1]))

    def list_parts(self) -> list[Pairs]:
        masks = [_FOLDERS[self.image_set], _FOLDERS["train"]]
        return [
            Pairs(
                find_files(self.root, f"{self.prefix}JPEGImages", names, is_image),
                find_files(self.root, f"{self.prefix}{folder}", names, is_image),
            )
            for names, folder in zip(self.parts, masks, strict=True)
        ]


def _read_parts(root: Root, folder: str, image_set: str) -> list[list[str]]:
    """Return the names of the images to train on, and of the test part's."""
    train = root.find(*(f"{folder}/{name}" for name in _LISTS[image_set]))
    test = root.find(f"{folder}/val.txt")
    if train is None or test is None:
        raise ValueError(
            f"{root.location(folder)} must hold {' or '.join(_LISTS[image_set])} and val.txt, found no "
            f"{'val.txt' if train else _LISTS[image_set][0]}"
        )
    parts = [(file.name, [_stem(name) for name in read_list(root, file.name)]) for file in (train, test)]
    check_apart(root, parts)
    return [names for _, names in parts]


def _stem(name: str) -> str:
    """Return a listed name; some lists of the augmented set have the images' paths instead."""
    return PurePosixPath(name).stem if "/" in name else name
