"""Reading idx files, the format of MNIST and its relatives, packed by gzip or not.

Source: the format's description in http://yann.lecun.com/exdb/mnist.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

_UINT8 = 0x08
_MAX_BYTES = 2**31


def read_idx_shape(file: IO[bytes], location: str, *, num_dims: int) -> tuple[int, ...]:
    """Return the shape that the header of an idx file declares.

    Args:
        file: opened as it is; unpacked on the fly where ``location`` ends in ``.gz``.
        location: what messages call the file.
        num_dims: 3 for images, 1 for labels.

    Raises:
        ValueError: as :func:`read_idx`.
    """
    try:
        with _unpacked(file, location) as content:
            return _read_header(content, location, num_dims)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {location}: {error}") from error


def read_idx(path: Path, *, num_dims: int) -> npt.NDArray[np.uint8]:
    """Return the content of an idx file of unsigned bytes.

    Args:
        path: the file; unpacked on the fly where the name ends in ``.gz``.
        num_dims: 3 for images, 1 for labels.

    Raises:
        ValueError: the file is damaged or another format; it is named.
    """
    try:
        with path.open("rb") as file, _unpacked(file, str(path)) as stream:
            shape = _read_header(stream, str(path), num_dims)
            size = math.prod(shape)
            # One byte more than declared: finds trailing bytes, and makes gzip check its sum at the end.
            content = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content):,}"
        raise ValueError(f"{path} must hold the {size:,} bytes that its header declares, found {found}: damaged file")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _unpacked(file: IO[bytes], location: str) -> IO[bytes]:
    """Return a file's content, through gzip where its name says so."""
    return cast(IO[bytes], gzip.open(file, "rb")) if location.endswith(".gz") else file


def _read_header(file: IO[bytes], location: str, num_dims: int) -> tuple[int, ...]:
    """Read magic number and shape: two zero bytes, type, number of dimensions, then big-endian sizes."""
    magic = file.read(4)
    expected = bytes([0, 0, _UINT8, num_dims])
    if magic != expected:
        found = magic.hex() or "nothing"
        raise ValueError(f"{location} must begin with the idx magic number {expected.hex()}, found {found}")
    sizes = file.read(4 * num_dims)
    if len(sizes) != 4 * num_dims:
        raise ValueError(f"{location} must declare {num_dims} sizes in its header, but ends within it")
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    if math.prod(shape) > _MAX_BYTES:
        raise ValueError(f"{location} must unpack to at most {_MAX_BYTES:,} bytes, found a header of {shape}")
    return shape
