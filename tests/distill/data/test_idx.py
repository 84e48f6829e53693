import gzip

import numpy as np
import pytest

from distill.data.idx import read_idx, read_idx_shape

# By hand: two zero bytes, 8 for unsigned bytes, 2 dimensions; sizes 2 and 3; six bytes.
CONTENT = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 13, 14, 255])


@pytest.fixture(params=["plain", "packed"])
def write(request, tmp_path):
    def write(content):
        path = tmp_path / ("x-idx2-ubyte.gz" if request.param == "packed" else "x-idx2-ubyte")
        path.write_bytes(gzip.compress(content) if request.param == "packed" else content)
        return path

    return write


def test_reads_what_the_format_says(write):
    path = write(CONTENT)
    assert read_idx_shape(path.open("rb"), str(path), num_dims=2) == (2, 3)
    array = read_idx(path, num_dims=2)
    assert array.dtype == np.uint8
    assert array.tolist() == [[10, 11, 12], [13, 14, 255]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT[:-1], "6 bytes that its header declares, found 5"),
        (CONTENT + b"x", "found more"),
        (CONTENT[:10], "2 sizes in its header"),
        (b"", "magic number 00000802, found nothing"),
        (b"\x00\x00\x0d\x02" + CONTENT[4:], "magic number 00000802, found 00000d02"),
        (b"<!doctype html>", "magic number"),
        (bytes([0, 0, 8, 2]) + b"\xff" * 8, "at most 2,147,483,648 bytes"),
    ],
)
def test_damage_is_named(write, content, message):
    path = write(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(path, num_dims=2)
    assert str(path) in str(error.value)


def test_no_damaged_byte_of_packed_content_changes_what_is_read(tmp_path):
    content = bytes([0, 0, 8, 1, 0, 0, 1, 0]) + bytes(range(256))
    packed = gzip.compress(content, mtime=0)
    path = tmp_path / "x.gz"
    num_noticed = 0
    for position in range(len(packed)):
        path.write_bytes(packed[:position] + bytes([packed[position] ^ 16]) + packed[position + 1 :])
        try:
            found = read_idx(path, num_dims=1)
        except ValueError:
            num_noticed += 1
        else:
            assert found.tolist() == list(range(256))
    assert num_noticed > 0.95 * len(packed)  # a few bits of gzip's header and of the padding have no meaning


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here", num_dims=1)
