"""Pascal VOC's folders: lists of names decide which images are in which part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distill.data.roots import ListedFile, Root


def find_prefix(root: Root, year: str, folder: str) -> str:
    """Return what stands before VOC's folders in ``root``: nothing, ``VOC<year>/`` or ``VOCdevkit/VOC<year>/``.

    Args:
        root: the folder that holds the files.
        year: of the challenge.
        folder: one that has to be there.

    Raises:
        ValueError: there is none of them.
    """
    prefixes = ("", f"VOC{year}/", f"VOCdevkit/VOC{year}/")
    found = next((prefix for prefix in prefixes if folder in root.folders(prefix.rstrip("/"))), None)
    if found is None:
        raise ValueError(
            f"root must hold {folder}/, itself or in VOC{year}/ or VOCdevkit/VOC{year}/, found none in "
            f"{root.location()}"
        )
    return found


def read_list(root: Root, name: str) -> list[str]:
    """Return the names in a list, one a line; what follows a name is left out.

    Raises:
        ValueError: it is no text, names nothing, or something twice.
    """
    with root.open(name) as stream:
        content = stream.read()
    try:
        names = [line.split()[0] for line in content.decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"list {root.location(name)} must be text in UTF-8: {error}") from error
    if not names:
        raise ValueError(f"list {root.location(name)} must name images, found none")
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise ValueError(f"list {root.location(name)} must name each image once, found {twice} twice")
    return names


def check_apart(root: Root, lists: Sequence[tuple[str, Sequence[str]]]) -> None:
    """Raise ``ValueError`` where an image is in two lists, which are given by name and content."""
    seen: dict[str, str] = {}
    for name, images in lists:
        for image in images:
            if image in seen:
                raise ValueError(
                    f"{root.location(seen[image])} and {name} must not share images, found {image} in both"
                )
            seen[image] = name


def find_files(root: Root, folder: str, names: Sequence[str], is_kind: Callable[[str], bool]) -> list[ListedFile]:
    """Return the files of a folder that have these names before their suffix.

    Args:
        root: the folder that holds ``folder``.
        folder: where the files are.
        names: in order.
        is_kind: whether a file is of the kind that is looked for, by its name.

    Raises:
        ValueError: one is missing, or there are two of a name.
    """
    wanted = set(names)
    found: dict[str, ListedFile] = {}
    for file in root.files(folder):
        name = stem(folder, file)
        if name not in wanted or not is_kind(file.name):
            continue
        if name in found:
            both = " and ".join(sorted([file.name, found[name].name]))
            raise ValueError(f"{root.location(folder)} must hold one file for each image, found {both}")
        found[name] = file
    missing = [name for name in names if name not in found]
    if missing:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise ValueError(
            f"{root.location(folder)} must hold a file for each image that is listed, found none for "
            f"{', '.join(missing[:3])}{more}"
        )
    return [found[name] for name in names]


def stem(folder: str, file: ListedFile) -> str:
    """Return a file's name in a folder, without its suffix."""
    return file.name.removeprefix(f"{folder}/").rpartition(".")[0]
