import hashlib

import numpy as np
import pytest
import torch

from distill.data.memory_source import MemorySource


def make(images=None, labels=(0, 1, 1), classes=("a", "b")):
    images = torch.arange(3 * 4, dtype=torch.uint8).reshape(3, 1, 2, 2) if images is None else images
    return MemorySource(images, np.asarray(labels, dtype=np.int64), classes)


def test_reads_copies_by_position():
    source = make()
    images = source.read(np.array([2, 0]))
    assert images.flatten(1).tolist() == [[8, 9, 10, 11], [0, 1, 2, 3]]
    images.zero_()
    assert source.images[2].flatten().tolist() == [8, 9, 10, 11]


def test_views_are_made_image_by_image():
    views = make().read_views(np.array([1, 2]), lambda image, place: image + place)
    assert [view.flatten().tolist() for view in views] == [[4, 5, 6, 7], [9, 10, 11, 12]]


def test_digest_sees_every_byte():
    digest = make().digest()
    assert len(digest) == hashlib.sha256().digest_size
    assert make().digest() == digest
    changed = make().images.clone()
    changed[2, 0, 1, 1] ^= 1
    others = [make(changed), make(labels=(0, 1, 0)), make(classes=("a", "c"))]
    assert len({digest, *(other.digest() for other in others)}) == 4


def test_labels_must_fit():
    with pytest.raises(ValueError, match="3 images, 2 labels"):
        make(labels=(0, 1))
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.1, found 0\.\.2"):
        make(labels=(0, 1, 2))
