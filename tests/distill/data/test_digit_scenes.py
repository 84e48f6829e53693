import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from distill.data import DigitScenes
from distill.data.annotation import Boxes, Mask
from distill.data.composer import Composer
from distill.data.digit_scenes import share_out
from distill.data.loader import Loader
from distill.data.split import Split
from distill.data.transforms import RandomCrop

SMALL = {"num_train": 12, "num_validation": 4, "num_test": 5}


def small(**options):
    return DigitScenes(**{**SMALL, **options})


def test_bytes_are_the_same_on_every_machine():
    content = hashlib.sha256()
    source = small(channels=1).read_source()
    content.update(source.images.numpy().data)
    for mask in source.annotations:
        content.update(mask.values.numpy().data)
    for boxes in small(annotate="boxes").read_source().annotations:
        content.update(boxes.boxes.numpy().astype("<f4").tobytes() + boxes.labels.numpy().astype("<i8").tobytes())
    assert content.hexdigest() == "282f107efb1b21a4ed0f6b999a6a786eef4f4e9699e2034d7df3468ba37141df"


def test_shapes_classes_and_parts():
    dataset = small(size=48)
    assert (dataset.num_classes, dataset.image_shape, dataset.annotation) == (11, (3, 48, 48), Mask)
    data = dataset.load()
    assert data.source.images.shape == (21, 3, 48, 48)
    assert data.source.images[:, 0].equal(data.source.images[:, 2])
    assert data.classes == ("background", *"0123456789")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 4, 5]
    assert small(annotate="boxes").load().classes == ("__background__", *"0123456789")
    assert small(channels=1).load().source.images.shape == (21, 1, 64, 64)


def test_masks_and_boxes_tell_of_the_same_scenes():
    masks, boxes = (small(annotate=kind).read_source() for kind in ("masks", "boxes"))
    assert masks.images.equal(boxes.images)
    assert (masks.annotation, boxes.annotation) == (Mask, Boxes)
    for mask, found in zip(masks.annotations, boxes.annotations, strict=True):
        assert set(found.labels.tolist()) == set(mask.values.unique().tolist()) - {0}
        assert not found.ignored.any()
        for label in found.labels.unique():
            rows, columns = torch.nonzero(mask.values == label, as_tuple=True)
            mine = found.boxes[found.labels == label]
            round_all = torch.cat([mine[:, :2].amin(dim=0), mine[:, 2:].amax(dim=0)])
            assert round_all.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_no_digit_is_in_two_parts(monkeypatch):
    given = []
    compose = Composer.compose

    def spy(self, digits, labels, numbers, seed):
        given.append({(digit.tobytes(), int(label)) for digit, label in zip(digits, labels, strict=True)})
        return compose(self, digits, labels, numbers, seed)

    monkeypatch.setattr(Composer, "compose", spy)
    small(seed=0).read_source()
    small(seed=1).read_source()
    assert [len(part) for part in given] == [1079, 359, 359] * 2
    assert len(set.union(*given)) == 1797  # two seeds, the same digits in each part
    labels = {digit: label for part in given for digit, label in part}
    assert sorted(labels.values()) == sorted((load_digits().target + 1).tolist())


def test_each_part_has_its_share_of_each_class():
    labels = load_digits().target
    for part, chosen in share_out(labels).items():
        counts = np.bincount(labels[chosen])
        expected = np.bincount(labels) * (0.6 if part == "train" else 0.2)
        assert np.abs(counts - expected).max() < 2


def test_parts_have_scenes_of_their_own_and_more_of_them_keep_the_first():
    few, more = small(), small(num_train=20, num_validation=6, num_test=7)
    few, more = few.load(), more.load()
    for part in ("train", "validation", "test"):
        fewer = getattr(few, part).read(np.arange(4))
        assert fewer.equal(getattr(more, part).read(np.arange(4)))
    images = {image.numpy().tobytes() for image in more.source.images}
    assert len(images) == 33
    assert not images & {image.numpy().tobytes() for image in small(seed=1).read_source().images}


def test_construction_reads_nothing(monkeypatch):
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: pytest.fail("read"))
    dataset = DigitScenes(num_train=10**6)
    with pytest.raises(pytest.fail.Exception):
        dataset.read_source()


def test_split_divides_the_training_scenes():
    data = small(split=Split(train=4, teacher="rest")).load()
    assert (len(data.train), len(data.teacher_train), len(data.validation), len(data.test)) == (4, 8, 4, 5)
    assert set(data.train.indices) | set(data.teacher_train.indices) == set(range(12))


def test_default_mean_and_std_are_those_of_the_scenes():
    dataset = DigitScenes(channels=1)
    pixels = dataset.read_source().images.double() / 255
    assert dataset.mean == pytest.approx([pixels.mean().item()], abs=1e-4)
    assert dataset.std == pytest.approx([pixels.std(correction=0).item()], abs=1e-4)


def test_default_augmentation_never_mirrors():
    (crop,) = small(size=96).transforms
    assert isinstance(crop, RandomCrop)
    assert crop.padding == 6
    assert small(augment=[]).transforms == ()


@pytest.mark.parametrize("annotate", ["masks", "boxes"])
def test_two_ranks_see_the_batches_of_one(annotate):
    data = small(annotate=annotate).load()

    def batches(rank=0, world_size=1):
        loader = Loader(
            data.train,
            batch_size=6,
            mean=data.mean,
            std=data.std,
            transforms=data.transforms,
            shuffle=True,
            drop_last=True,
            rank=rank,
            world_size=world_size,
            device=torch.device("cpu"),
        )
        return list(loader.epoch(1))

    shares = [batches(rank, 2) for rank in range(2)]
    for number, whole in enumerate(batches()):
        for rank in range(2):
            part = shares[rank][number]
            assert part.images.equal(whole.images[rank::2])
            if annotate == "masks":
                assert part.labels.equal(whole.labels[rank::2])
                continue
            for kind in ("boxes", "labels", "ignored"):
                pairs = zip(getattr(part.labels, kind), getattr(whole.labels, kind)[rank::2], strict=True)
                assert all(mine.equal(theirs) for mine, theirs in pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"annotate": "points"}, "annotate must be 'masks' or 'boxes', found 'points'"),
        ({"channels": 2}, "channels must be 1, or 3"),
        ({"num_validation": 0}, "num_validation must be at least 1 scene, found 0"),
        ({"num_test": -1}, "num_test must be at least 1 scene, found -1"),
        ({"min_digits": 0}, "min_digits and max_digits must be a range from 1 digit up, found 0 and 6"),
        ({"min_digits": 5, "max_digits": 4}, "min_digits .* found 5 and 4"),
        ({"min_side": 7}, "min_side and max_side must be a range from 8 pixels up, found 7 and 28"),
        ({"max_clutter": -1}, "max_clutter must be 0 or more, found -1"),
        ({"size": 27}, "size must be at least 28 pixels for 6 digits of up to 28 pixels, found 27"),
        ({"split": Split(train=13)}, "split.train .*13 of 12 training images"),
        ({"std": [0.0]}, "std must be above 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)
