"""COCO's annotations: one JSON file for all images of a part."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from distill.data.object_record import ObjectRecord
from distill.data.roots import Root


class COCOFile:
    """The content of one file: categories, images, and the objects of each image.

    Boxes are ``[left, top, width, height]`` there, in pixels from 0, and need not be whole. Crowds (``iscrowd``) are
    ignored. Outlines are not read, which keeps a file of hundreds of megabytes in bounds.

    Args:
        root: the folder that holds the file.
        name: of the file.

    Attributes:
        location: what messages call the file.
        names: of the categories, by id, in their order.
        images: the file names of the images, by id, in the file's order.

    Raises:
        ValueError: the file is damaged, or lacks what is needed; it is named.
    """

    def __init__(self, root: Root, name: str) -> None:
        self.location = root.location(name)
        with self._explained():
            with root.open(name) as stream:
                self._content = json.load(stream, object_hook=_without_outlines)
            categories = sorted((int(each["id"]), str(each["name"])) for each in self._content["categories"])
            self.names = dict(categories)
            if not len(set(self.names.values())) == len(self.names) == len(categories) or not categories:
                raise ValueError(
                    f"categories must have ids and names that differ, at least one, found "
                    f"{', '.join(f'{number} {name}' for number, name in categories[:5]) or 'none'}"
                )
            self.images = {int(each["id"]): str(each["file_name"]) for each in self._content["images"]}
            if not len(set(self.images.values())) == len(self.images) == len(self._content["images"]):
                raise ValueError("images must have ids and file names that differ, found one twice")

    def records(self, labels: Mapping[str, int]) -> list[ObjectRecord]:
        """Return the objects of each image, in the file's order.

        Args:
            labels: of each class, from 1, by its name; objects of other classes are left out.

        Raises:
            ValueError: an annotation is of no image or category, or its box is none.
        """
        with self._explained():
            objects: dict[int, list[tuple[list[float], int, bool]]] = {image: [] for image in self.images}
            num_others = dict.fromkeys(self.images, 0)
            for each in self._content["annotations"]:
                image, name = int(each["image_id"]), self.names.get(int(each["category_id"]))
                if image not in objects or name is None:
                    raise ValueError(
                        f"annotations must be of an image and a category of the file, found image {image} and "
                        f"category {each['category_id']}"
                    )
                if name not in labels:
                    num_others[image] += 1
                else:
                    objects[image].append((_edges(each["bbox"]), labels[name], bool(int(each.get("iscrowd") or 0))))
            return [
                ObjectRecord.of(objects[image], size=_size(each), num_others=num_others[image])
                for image, each in zip(self.images, self._content["images"], strict=True)
            ]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except KeyError as error:
            raise ValueError(f"cannot read annotations {self.location}: the key {error} is missing") from error
        except (ValueError, TypeError, AttributeError, OSError, RecursionError) as error:
            raise ValueError(f"cannot read annotations {self.location}: {error}") from error


def _without_outlines(each: dict[str, Any]) -> dict[str, Any]:
    each.pop("segmentation", None)
    return each


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = int(image.get("width") or 0), int(image.get("height") or 0)
    return (width, height) if width and height else None


def _edges(box: Any) -> list[float]:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise ValueError(f"bbox must be left, top, width and height, found {box!r}")
    left, top, width, height = map(float, box)
    return [left, top, left + width, top + height]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
