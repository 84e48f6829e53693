"""Pascal VOC's annotations: an XML file for each image."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from distill.data.object_record import ObjectRecord
from distill.data.object_records import ObjectRecords
from distill.data.roots import ListedFile, Root

MAX_BYTES = 16 * 2**20
"""Far more than a file needs for one image."""

_OBJECT = ("annotation", "object")
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class VOCRecords(ObjectRecords):
    """Pascal VOC's annotations.

    Pixels are numbered from 1 in these files, and a box holds its last pixel: ``xmin`` and ``ymin`` less one are the
    distances of its edges from the border, ``xmax`` and ``ymax`` are so already. Objects marked ``difficult`` are
    ignored; the parts of an object are no objects.

    Args:
        files: one an image.
        labels: of each class, from 1; objects of other classes are left out.
    """

    def __init__(self, files: Sequence[ListedFile], labels: Mapping[str, int]) -> None:
        self.files = files
        self.labels = labels

    def values(self) -> Iterable[bytes]:
        return ()

    def read(self, root: Root, index: int) -> ObjectRecord:
        found = _read(root, self.files[index].name)
        objects = [
            (_edges(each.sides), self.labels[each.name], each.is_difficult)
            for each in found.objects
            if each.name in self.labels
        ]
        size = (round(found.width), round(found.height)) if found.width and found.height else None
        return ObjectRecord.of(objects, size=size, num_others=len(found.objects) - len(objects))


def find_names(root: Root, files: Sequence[ListedFile], num_threads: int) -> list[str]:
    """Return the sorted names of all objects in these files; it takes to read them all.

    Raises:
        ValueError: one is damaged; it is named.
    """
    with ThreadPoolExecutor(num_threads, thread_name_prefix="names") as pool:
        found = pool.map(lambda file: {each.name for each in _read(root, file.name).objects}, files)
        return sorted(set[str]().union(*found))


@dataclass
class _Object:
    """An object as its file describes it."""

    name: str = ""
    is_difficult: bool = False
    sides: dict[str, float] = field(default_factory=dict)


@dataclass
class _File:
    """A file's content, as far as it is used; a width or height of 0 is not known."""

    width: float = 0
    height: float = 0
    objects: list[_Object] = field(default_factory=list)


class _Parser:
    """Reads one file, element by element; declarations of types and entities are refused."""

    def __init__(self) -> None:
        self.file = _File()
        self._path: list[str] = []
        self._text: list[str] = []

    def parse(self, content: bytes) -> _File:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.Parse(content, True)
        return self.file

    def _refuse(self, *_: object) -> NoReturn:
        raise ValueError("annotations must not declare a document type or entities")

    def _start(self, name: str, _: object) -> None:
        self._path.append(name)
        self._text.clear()
        if tuple(self._path) == _OBJECT:
            self.file.objects.append(_Object())

    def _end(self, name: str) -> None:
        match self._path[1:]:
            case ["size", "width"]:
                self.file.width = self._number()
            case ["size", "height"]:
                self.file.height = self._number()
            case ["object", "name"]:
                self.file.objects[-1].name = self._value()
            case ["object", "difficult"]:
                self.file.objects[-1].is_difficult = self._number() != 0
            case ["object", "bndbox", side]:
                self.file.objects[-1].sides[side] = self._number()
        self._path.pop()

    def _value(self) -> str:
        return "".join(self._text).strip()

    def _number(self) -> float:
        text = self._value()
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"{'/'.join(self._path)} must be a number, found {text!r}")
        return number


def _read(root: Root, name: str) -> _File:
    """Read a file.

    Raises:
        ValueError: it is damaged, or lacks what is needed; it is named.
    """
    try:
        with root.open(name) as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"at most {MAX_BYTES:,} bytes are allowed")
        found = _Parser().parse(content)
        for number, each in enumerate(found.objects):
            missing = [side for side in _SIDES if side not in each.sides] + ["name"] * (not each.name)
            if missing:
                raise ValueError(f"object {number} must have a name and a box, found no {', '.join(missing)}")
    except (expat.ExpatError, ValueError, OSError) as error:
        raise ValueError(f"cannot read annotation {root.location(name)}: {error}") from error
    return found


def _edges(sides: Mapping[str, float]) -> list[float]:
    return [sides["xmin"] - 1, sides["ymin"] - 1, sides["xmax"], sides["ymax"]]
