"""What every data set of the registry promises."""

import numpy as np
import pytest
import torch

import distill.data
from distill.data.annotated_memory import AnnotatedMemory
from distill.data.annotation import Mask
from distill.data.base import Dataset
from distill.data.loader import Loader
from distill.data.split import Split
from distill.data.transforms import RandomHorizontalFlip

FIXTURES = {
    "ADE20K": lambda request: {
        "root": str(request.getfixturevalue("ade20k_root")({"training": 20, "validation": 5})),
        "size": 16,
    },
    "CIFAR10": lambda request: {"root": str(request.getfixturevalue("cifar_root")(10))},
    "CIFAR100": lambda request: {"root": str(request.getfixturevalue("cifar_root")(100))},
    "COCODetection": lambda request: {"root": str(request.getfixturevalue("coco_root")({"train": 20})), "size": 48},
    "Cityscapes": lambda request: {
        "root": str(request.getfixturevalue("cityscapes_root")({"train": 10, "val": 3})),
        "size": [16, 32],
    },
    "DigitScenes": lambda request: {"num_train": 20, "num_validation": 4, "num_test": 6},
    "Digits": lambda request: {},
    "FashionMNIST": lambda request: {"root": str(request.getfixturevalue("fashion_root")())},
    "ImageFolder": lambda request: {"root": str(request.getfixturevalue("image_root")({"train": 20})), "size": 32},
    "MaskFolder": lambda request: {
        "root": str(request.getfixturevalue("mask_root")({"train": 20})),
        "classes": ["ground", "cell", "border"],
        "size": [32, 40],
    },
    "VOCDetection": lambda request: {"root": str(request.getfixturevalue("voc_root")({"train": 20})), "size": 48},
    "VOCSegmentation": lambda request: {
        "root": str(request.getfixturevalue("voc_masks_root")({"train": 20, "val": 5})),
        "size": 16,
    },
}


@pytest.fixture(params=distill.data.__all__)
def make(request):
    """Constructs the data set with the options given."""
    options = FIXTURES[request.param](request)
    return lambda **more: getattr(distill.data, request.param)(**options, **more)


def test_registry_is_sorted_and_holds_data_sets():
    assert distill.data.__all__ == sorted(distill.data.__all__)
    assert all(issubclass(getattr(distill.data, name), Dataset) for name in distill.data.__all__)


def test_a_set_and_its_source_agree_on_annotations(make):
    dataset = make()
    assert dataset.load().source.annotation is dataset.annotation


def test_parts_are_disjoint_and_stratified(make):
    data = make().load()
    parts = [set(part.indices.tolist()) for part in (data.train, data.validation, data.test)]
    assert len(set.union(*parts)) == sum(len(part) for part in parts) == len(data.source)
    assert data.teacher_train.indices.tolist() == data.train.indices.tolist()
    present = np.bincount(data.train.labels, minlength=data.num_classes if data.source.annotation is None else 1)
    assert (present > 0).all()


def test_batches_have_the_promised_shape(make):
    dataset = make()
    data = dataset.load()
    assert data.image_shape == dataset.image_shape
    assert data.num_classes == dataset.num_classes == len(data.classes)
    for subset, transforms in ((data.train, data.transforms), (data.test, ())):
        loader = Loader(
            subset,
            batch_size=4,
            mean=data.mean,
            std=data.std,
            transforms=transforms,
            shuffle=True,
            drop_last=True,
            device=torch.device("cpu"),
        )
        batch = next(loader.epoch(0))
        assert batch.images.shape == (4, *data.image_shape)
        assert batch.images.dtype == torch.float32
        assert batch.images.isfinite().all()
        classes = known(batch.labels)
        assert 0 <= classes.min() <= classes.max() < data.num_classes


def known(labels):
    """Returns all classes that a batch's labels name."""
    return labels[labels != 255] if isinstance(labels, torch.Tensor) else torch.cat(labels.labels)


def test_fingerprint_names_content_and_split_but_not_the_augmentation(make):
    fingerprint = make().load().fingerprint
    assert len(fingerprint) == 64
    assert make(augment=[RandomHorizontalFlip()]).load().fingerprint == fingerprint
    first, other = (make(split=Split(train=10, seed=seed)).load().fingerprint for seed in (0, 1))
    assert first != other
    assert make(split=Split(protocol="paper")).load().fingerprint != fingerprint
    same, rest = (make(split=Split(train=10, teacher=teacher)).load() for teacher in ("same", "rest"))
    assert same.train.indices.tolist() == rest.train.indices.tolist()
    assert same.fingerprint != rest.fingerprint
    assert make(mean=[0.5]).load().fingerprint != fingerprint


def test_no_augmentation_is_a_choice(make):
    assert make(augment=[]).transforms == ()
    assert len(make().transforms) > 0


def test_paper_protocol_is_marked(make):
    data = make(split=Split(protocol="paper")).load()
    assert data.protocol == "paper"
    assert data.validation is None
    assert len(data.train) + len(data.test) == len(data.source)


class Stripes(Dataset):
    annotation = Mask

    def read_source(self):
        masks = torch.arange(3, dtype=torch.uint8).repeat(20, 8, 8)[:, :, :8].contiguous()
        images = torch.zeros(20, 3, 8, 8, dtype=torch.uint8)
        return AnnotatedMemory(images, [Mask(mask) for mask in masks], ["sky", "road", "car"], num_test=4)


class Unmarked(Stripes):
    annotation = None


@pytest.mark.parametrize(
    ("kind", "num_classes", "message"),
    [
        (Stripes, 4, "must have a source with 4 classes and annotation Mask, found 3 classes and annotation Mask"),
        (Unmarked, 3, "must have a source with 3 classes and annotation None, found 3 classes and annotation Mask"),
    ],
)
def test_a_source_unlike_its_data_set_is_refused(kind, num_classes, message):
    options = {"image_shape": (3, 8, 8), "mean": [0.5], "std": [0.5], "split": Split(validation=4), "augment": ()}
    assert Stripes(num_classes=3, **options).load().classes == ("sky", "road", "car")
    with pytest.raises(ValueError, match=message):
        kind(num_classes=num_classes, **options).load()
