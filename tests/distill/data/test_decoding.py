import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from distill.data.decoding import decode_mask, is_image
from distill.data.roots import LocalRoot

INDICES = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 3, 3]], dtype=np.uint8)


def png(bits, colour_type, rows):
    """Returns a PNG of packed rows, written by hand: Pillow writes no grey of 2 or 4 bits."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = len(rows), len(rows[0])
    packed = b""
    for row in rows:
        number = 0
        for value in row:
            number = number << bits | int(value)
        packed += b"\0" + number.to_bytes(bits * width // 8, "big")
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(100, 112))) if colour_type == 3 else b""
    content = chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + content


def decode(tmp_path, content):
    (tmp_path / "mask.png").write_bytes(content)
    return decode_mask(LocalRoot(tmp_path), "mask.png")


@pytest.mark.parametrize("colour_type", [0, 3], ids=["grey", "palette"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_indices_are_read_as_they_are_written(tmp_path, bits, colour_type):
    found = decode(tmp_path, png(bits, colour_type, INDICES))
    assert found.dtype == np.uint8
    assert found.tolist() == INDICES.tolist()


@pytest.mark.parametrize("colour_type", [0, 3], ids=["grey", "palette"])
def test_one_bit_is_two_classes(tmp_path, colour_type):
    rows = np.tile([0, 1, 1, 0, 0, 0, 1, 0], (3, 1))
    assert decode(tmp_path, png(1, colour_type, rows)).tolist() == rows.tolist()


def test_a_saved_palette_gives_indices_and_never_colours(tmp_path):
    image = Image.fromarray(INDICES, mode="P")
    image.putpalette([200, 10, 10] * 4)
    image.save(tmp_path / "mask.png")
    assert decode_mask(LocalRoot(tmp_path), "mask.png").tolist() == INDICES.tolist()


def test_sixteen_bits_may_hold_small_indices(tmp_path):
    Image.fromarray(INDICES.astype(np.uint16) + 252).save(tmp_path / "mask.png")
    assert decode_mask(LocalRoot(tmp_path), "mask.png").max() == 255
    Image.fromarray(INDICES.astype(np.uint16) + 253).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match=f"cannot read mask {tmp_path}/mask.png: indices must be 255 at most, found 2"):
        decode_mask(LocalRoot(tmp_path), "mask.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_refused(tmp_path, mode):
    Image.new(mode, (4, 3)).save(tmp_path / "mask.png")
    message = f"masks must have one channel of class indices, found mode {mode}; write indices, not colours"
    with pytest.raises(ValueError, match=message):
        decode_mask(LocalRoot(tmp_path), "mask.png")


def test_other_formats_are_refused(tmp_path):
    Image.fromarray(INDICES).save(tmp_path / "mask.png", "JPEG")
    with pytest.raises(ValueError, match=r"cannot read mask .*mask.png: cannot identify"):
        decode_mask(LocalRoot(tmp_path), "mask.png")


@pytest.mark.parametrize(
    ("name", "expected"), [("a/b.JPG", True), ("a.png", True), ("a/.b.png", False), ("png", False), ("a.txt", False)]
)
def test_what_is_an_image_by_its_name(name, expected):
    assert is_image(name) is expected
