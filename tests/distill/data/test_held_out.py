import numpy as np
import pytest
import torch

from distill.data import Subset
from distill.data.held_out import hold_out
from distill.data.memory_source import MemorySource


def training(labels, first=0):
    labels = np.asarray(labels, dtype=np.int64)
    source = MemorySource(torch.zeros((len(labels), 1, 1, 1), dtype=torch.uint8), labels, ["a", "b", "c", "d"])
    return Subset(source, np.arange(first, len(labels), dtype=np.int64))


def test_no_image_is_on_both_sides_and_each_class_keeps_its_share():
    subset = training(np.repeat([0, 1, 2], [100, 50, 10]))
    rest, held_out = hold_out(subset, 0.2, seed=0)
    assert not set(rest.indices) & set(held_out.indices)
    assert set(rest.indices) | set(held_out.indices) == set(subset.indices)
    assert np.bincount(held_out.labels).tolist() == [20, 10, 2]
    assert np.bincount(rest.labels).tolist() == [80, 40, 8]
    for part in (rest, held_out):
        assert part.indices.dtype == np.int64
        assert (np.diff(part.indices) > 0).all()
        assert part.source is subset.source


def test_only_images_of_the_subset_are_divided():
    subset = training([0, 1] * 50, first=40)
    rest, held_out = hold_out(subset, 0.5, seed=0)
    assert (len(rest), len(held_out)) == (30, 30)
    assert min(*rest.indices, *held_out.indices) == 40


def test_the_seed_chooses_and_repeats():
    subset = training([0, 1] * 50)
    first, again, other = (set(hold_out(subset, 0.2, seed=seed)[1].indices) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_which_images_is_the_same_for_good():
    _, held_out = hold_out(training([0, 1, 2] * 8), 0.25, seed=7)
    assert held_out.indices.tolist() == [0, 1, 5, 14, 18, 22]


def test_a_larger_share_includes_the_smaller():
    subset = training([0, 1] * 50)
    few, more = (set(hold_out(subset, share, seed=0)[1].indices) for share in (0.1, 0.3))
    assert few < more


def test_a_small_share_holds_other_classes_with_other_seeds():
    subset = training([0, 1, 2, 3] * 24)
    held = [hold_out(subset, 2 / 96, seed=seed)[1].labels.tolist() for seed in range(40)]
    assert all(len(set(labels)) == 2 for labels in held)
    counts = np.bincount(np.concatenate(held), minlength=4)
    assert (np.abs(counts - 20) < 13).all()  # each is binomial with standard deviation 3.2
    assert hold_out(subset, 2 / 96, seed=0)[1].indices.tolist() == [35, 77]


@pytest.mark.parametrize(
    ("share", "num_workers", "message"),
    [
        (0.04, 1, "held_out must take at least 2 of the training images and leave .*found 0.04, that is 0 of 10"),
        (0.1, 1, "at least 2 of the training images and .*found 0.1, that is 1 of 10 images"),
        (0.9, 1, "leave as many to train on: found 0.9, that is 9 of 10 images"),
        (0.3, 2, "at least 4 of the training images, 2 for each of 2 workers, .*found 0.3, that is 3 of 10 images"),
        (0.7, 2, "at least 4 of the training images, 2 for each of 2 workers, .*found 0.7, that is 7 of 10 images"),
    ],
)
def test_both_sides_get_images_or_the_share_is_refused(share, num_workers, message):
    with pytest.raises(ValueError, match=message):
        hold_out(training([0, 1] * 5), share, seed=0, num_workers=num_workers)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_two_images_for_each_worker_on_either_side_are_enough(num_workers):
    for share, count in ((0.2 * num_workers, 2 * num_workers), (1 - 0.2 * num_workers, 10 - 2 * num_workers)):
        rest, held_out = hold_out(training([0, 1] * 5), share, seed=0, num_workers=num_workers)
        assert (len(rest), len(held_out)) == (10 - count, count)
