"""Which mask belongs to which image: the files of two folders, matched by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from distill.data.roots import ListedFile, Root
from distill.data.segmentation_dataset import Pairs

_logger = logging.getLogger(__name__)


def pair_files(
    root: Root,
    images: str,
    masks: str,
    *,
    image_key: Callable[[str], str | None],
    mask_key: Callable[[str], str | None],
) -> Pairs:
    """Match the files below two folders, sorted by the images' keys.

    Masks without an image are left out with a warning.

    Args:
        root: the folder that holds both.
        images: the folder of the images.
        masks: the folder of the masks.
        image_key: returns what names an image and its mask alike, given a file's name below the folder; ``None`` for
            what is no image.
        mask_key: likewise.

    Raises:
        ValueError: there is no image, one has no mask, or two files have one key.
    """
    found = _by_key(root, images, image_key)
    if not found:
        raise ValueError(f"there must be images below {root.location(images)}, found none")
    annotated = _by_key(root, masks, mask_key)
    missing = sorted(found.keys() - annotated.keys())
    if missing:
        raise ValueError(
            f"each image in {root.location(images)} must have its mask in {root.location(masks)}, found none for "
            f"{_some(missing)}"
        )
    spare = sorted(annotated.keys() - found.keys())
    if spare:
        _logger.warning("left out masks in %s without an image: %s", root.location(masks), _some(spare))
    keys = sorted(found)
    return Pairs([found[key] for key in keys], [annotated[key] for key in keys])


def _by_key(root: Root, folder: str, key_of: Callable[[str], str | None]) -> dict[str, ListedFile]:
    found: dict[str, ListedFile] = {}
    for file in root.files(folder):
        key = key_of(file.name.removeprefix(f"{folder}/"))
        if key is None:
            continue
        other = found.setdefault(key, file)
        if other is not file:
            first, second = sorted((other.name, file.name))
            raise ValueError(f"{root.location(first)} and {second} must not both be named {key}: leave one of them out")
    return found


def _some(names: Sequence[str]) -> str:
    """Return the first few names, and how many there are."""
    return f"{', '.join(names[:3])}{f' and {len(names) - 3:,} more' if len(names) > 3 else ''}"
