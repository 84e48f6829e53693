"""ADE20K, as its scene parsing benchmark has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from distill.data.annotated_dataset import open_root
from distill.data.canvas import Fit
from distill.data.decoding import is_image
from distill.data.mask_source import values_of
from distill.data.pairing import pair_files
from distill.data.segmentation_dataset import Pairs, SegmentationDataset
from distill.data.split import Split
from distill.data.transforms.base import Transform

# fmt: off
CLASSES = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet", "sidewalk",
    "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water", "painting", "sofa",
    "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp",
    "bathtub", "railing", "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand",
    "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case", "pool table",
    "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind", "coffee table", "toilet", "flower",
    "book", "hill", "bench", "countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "bar",
    "arcade machine", "hovel", "bus", "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight",
    "booth", "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister", "escalator",
    "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer",
    "plaything", "swimming pool", "stool", "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven",
    "ball", "food", "step", "tank", "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher",
    "screen", "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier",
    "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)
# fmt: on

_PREFIXES = ("ADEChallengeData2016/", "")
_PARTS = ("training", "validation")


class ADE20K(SegmentationDataset):
    """Scenes with 150 classes of things and places (Zhou et al. 2017, arXiv:1608.05442).

    ``root`` holds ``images/training/*.jpg`` and ``annotations/training/*.png``, and the same of ``validation``, itself
    or in ``ADEChallengeData2016/``: http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip.
    ``training`` is for training, and validation is held out of it; ``validation`` is the official test part, as
    papers report it: 20,210 and 2,000 images. Files count classes from 1; their 0 is none of them, and unknown.

    Args:
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
        folder = open_root(root, archive)
        found = next((each for each in _PREFIXES if _is_complete(folder.folders(f"{each}annotations"))), None)
        if found is None:
            raise ValueError(
                f"root must hold annotations/training/ and annotations/validation/, itself or in {_PREFIXES[0]}, found "
                f"none in {folder.location()}"
            )
        self.prefix = found
        super().__init__(
            root=folder,
            classes=CLASSES,
            values=values_of(range(1, len(CLASSES) + 1), (0,)),
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
            pair_files(
                self.root,
                f"{self.prefix}images/{part}",
                f"{self.prefix}annotations/{part}",
                image_key=_key,
                mask_key=_key,
            )
            for part in _PARTS
        ]


def _is_complete(folders: Sequence[str]) -> bool:
    return set(_PARTS) <= set(folders)


def _key(name: str) -> str | None:
    return name.rpartition(".")[0] if is_image(name) else None
