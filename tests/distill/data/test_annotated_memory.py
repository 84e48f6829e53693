import hashlib

import numpy as np
import pytest
import torch

from distill.data.annotated_memory import AnnotatedMemory
from distill.data.annotation import Boxes, Mask, Sample

IMAGES = torch.arange(3 * 16, dtype=torch.uint8).reshape(3, 1, 4, 4)


def masks(value=1):
    return [Mask(torch.full((4, 4), value * number, dtype=torch.uint8)) for number in range(3)]


def boxes(label=1, *, ignored=False):
    box = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    return [Boxes(box, torch.tensor([label]), torch.tensor([ignored]), 4, 4) for _ in range(3)]


def make(images=IMAGES, annotations=None, classes=("a", "b", "c"), **options):
    return AnnotatedMemory(images, masks() if annotations is None else annotations, classes, **options)


def test_samples_are_an_image_and_its_annotation_seen_place_by_place():
    places = []

    def view(sample, place):
        places.append(place)
        return sample

    samples = make().read_samples(np.array([2, 0]), view)
    assert places == [0, 1]
    assert [sample.image.equal(IMAGES[index]) for sample, index in zip(samples, (2, 0), strict=True)] == [True, True]
    assert [int(sample.annotation.values.max()) for sample in samples] == [2, 0]
    samples[0].image.zero_()
    assert IMAGES[2].max() == 47


def test_images_can_be_read_alone():
    source = make()
    assert source.read(np.array([1])).equal(IMAGES[1:2])
    (view,) = source.read_views(np.array([1]), lambda image, place: image + 1)
    assert view.equal(IMAGES[1] + 1)


def test_the_kind_of_annotation_is_that_of_the_annotations():
    assert make().annotation is Mask
    assert make(annotations=boxes()).annotation is Boxes
    assert make(num_validation=1, num_test=1).labels.tolist() == [0, 0, 0]


def test_fitting_leaves_the_right_size_alone_and_brings_others_to_it():
    source = make()
    image = IMAGES[0]
    sample = Sample(image, masks()[0])
    assert source.fit_sample(sample) is sample
    assert source.fit(image) is image
    large = Sample(torch.full((1, 8, 8), 9, dtype=torch.uint8), masks()[1].resized(8, 8))
    fitted = source.fit_sample(large)
    assert fitted.image.tolist() == [[[9] * 4] * 4]
    assert fitted.annotation.values.tolist() == [[1] * 4] * 4


def test_digest_sees_images_annotations_and_classes():
    others = [
        make(),
        make(IMAGES + 1),
        make(annotations=masks(2)),
        make(classes=("a", "b", "d")),
        make(annotations=boxes()),
        make(annotations=boxes(2)),
        make(annotations=boxes(ignored=True)),
    ]
    digests = {other.digest() for other in others}
    assert len(digests) == len(others)
    assert make().digest() in digests
    assert {len(digest) for digest in digests} == {hashlib.sha256().digest_size}


def test_each_image_needs_an_annotation():
    with pytest.raises(ValueError, match="found 3 images, 2 annotations"):
        make(annotations=masks()[:2])
    with pytest.raises(ValueError, match="found 0 images, 0 annotations"):
        make(IMAGES[:0], [])
