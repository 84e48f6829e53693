import hashlib

import numpy as np
import pytest
import torch

from distill.data.memory_source import MemorySource
from distill.data.split import Split


def source(labels, *, num_validation=0, num_test=0):
    labels = np.asarray(labels, dtype=np.int64)
    images = torch.zeros((len(labels), 1, 1, 1), dtype=torch.uint8)
    made = MemorySource(images, labels, [str(label) for label in range(labels.max() + 1)], num_test=num_test)
    made.num_validation = num_validation
    return made


def parts(partition):
    return [set(part.tolist()) for part in (partition.train, partition.validation, partition.test)]


def test_default_holds_out_a_fifth_and_then_a_tenth_without_overlap():
    train, validation, test = parts(Split().divide(source([0, 1] * 50)))
    assert (len(train), len(validation), len(test)) == (72, 8, 20)
    assert train | validation | test == set(range(100))


def test_each_class_keeps_its_share():
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    partition = Split(validation=16, test=0.2, seed=3).divide(source(labels))
    assert np.bincount(labels[partition.test]).tolist() == [20, 10, 2]
    assert np.bincount(labels[partition.validation]).tolist() == [10, 5, 1]


def test_the_largest_remainders_get_what_rounding_leaves():
    # 3 of 5 + 3 + 2: exact shares 1.5, 0.9, 0.6; whole parts 1, 0, 0; the two largest remainders are 0.9 and 0.6.
    labels = [0] * 5 + [1] * 3 + [2] * 2
    partition = Split(validation=1, test=3).divide(source(labels))
    assert np.bincount(np.asarray(labels)[partition.test], minlength=3).tolist() == [1, 1, 1]


def test_official_test_part_stays_and_positions_count_on():
    partition = Split(validation=10).divide(source([0, 1] * 60, num_test=20))
    assert partition.test.tolist() == list(range(100, 120))
    assert len(partition.validation) == 10
    assert max(partition.validation) < 100
    assert len(partition.train) == 90


def test_own_validation_part_is_the_validation():
    partition = Split(validation=0.5).divide(source([0, 1] * 50, num_validation=20, num_test=10))
    assert partition.train.tolist() == list(range(70))
    assert partition.validation.tolist() == list(range(70, 90))
    assert partition.test.tolist() == list(range(90, 100))


def test_teacher_same_trains_on_the_students_images():
    partition = Split(train=12).divide(source([0, 1] * 50))
    assert len(partition.train) == 12
    assert partition.teacher_train.tolist() == partition.train.tolist()


def test_teacher_rest_trains_on_neither_the_students_nor_the_validation_images():
    partition = Split(validation=5, train=20, teacher="rest").divide(source([0, 1] * 60, num_test=20))
    train, validation, test = parts(partition)
    teacher = set(partition.teacher_train.tolist())
    assert len(teacher) == 100 - 5 - 20
    assert teacher | train | validation == set(range(100))
    assert not teacher & (train | validation | test)


def test_paper_trains_on_everything_but_the_test():
    partition = Split(protocol="paper").divide(source([0, 1] * 60, num_validation=10, num_test=20))
    assert partition.train.tolist() == list(range(100))
    assert partition.teacher_train.tolist() == list(range(100))
    assert partition.validation is None
    assert partition.test.tolist() == list(range(100, 120))


def test_paper_still_holds_out_a_test_where_there_is_none():
    partition = Split(protocol="paper", test=10).divide(source([0, 1] * 50))
    assert len(partition.test) == 10
    assert len(partition.train) == 90
    assert partition.validation is None


def test_the_seed_chooses_and_repeats():
    first, again, other = (Split(seed=seed).divide(source([0, 1] * 50)) for seed in (1, 1, 2))
    assert parts(first) == parts(again)
    assert parts(first)[1] != parts(other)[1]
    assert parts(first)[2] != parts(other)[2]


def test_which_images_is_the_same_for_good():
    """Results were published on splits like these, whose classes of equal size compete for what rounding leaves."""
    digest = hashlib.sha256()
    for options in ({}, {"validation": 33, "test": 50, "seed": 5}, {"train": 101, "teacher": "rest", "seed": 1}):
        partition = Split(**options).divide(source(np.arange(1001) % 7))
        for part in (partition.train, partition.teacher_train, partition.validation, partition.test):
            digest.update(part.tobytes())
    assert digest.hexdigest() == "00535c88e4cc370455c94166be5459258a4c231629b1982980da0da63dd3a169"


def test_more_training_images_include_the_fewer():
    few, more = (set(Split(train=n).divide(source([0, 1] * 50)).train.tolist()) for n in (10, 30))
    assert few < more


def test_all_parts_ascend():
    partition = Split(train=20, teacher="rest").divide(source([1, 0] * 50))
    for part in (partition.train, partition.teacher_train, partition.validation, partition.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.0}, "split.validation must be a share"),
        ({"validation": 1.0}, "split.validation must be a share.*found 1.0"),
        ({"validation": -5}, "split.validation"),
        ({"validation": True}, "split.validation"),
        ({"test": 1.5}, "split.test"),
        ({"train": 0}, "split.train must be a number of images"),
        ({"teacher": "others"}, "split.teacher must be 'same' or 'rest', found 'others'"),
        ({"protocol": "papr"}, "split.protocol must be 'holdout' or 'paper', found 'papr'"),
        ({"teacher": "rest"}, "needs split.train"),
        ({"protocol": "paper", "train": 10}, "left out under protocol 'paper'"),
    ],
)
def test_wrong_options_are_refused_at_construction(options, message):
    with pytest.raises(ValueError, match=message):
        Split(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test": 100}, "split.test must take at least one image and leave some.*100 of 100"),
        ({"test": 0.001}, "split.test .*0 of 100"),
        ({"test": 50, "validation": 50}, "split.validation .*50 of 50"),
        ({"train": 73}, "split.train .*found 73 of 72"),
        ({"train": 72, "teacher": "rest"}, "split.train .*'rest' needs some.*72 of 72"),
    ],
)
def test_amounts_that_exceed_the_data_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Split(**options).check(100)
    with pytest.raises(ValueError, match=message):
        Split(**options).divide(source([0, 1] * 50))


def test_exactly_all_images_may_train():
    assert len(Split(train=72).divide(source([0, 1] * 50)).train) == 72
