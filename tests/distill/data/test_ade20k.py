import numpy as np
import pytest
from annotated_roots import write_pair
from PIL import Image

from distill.data import ADE20K
from distill.data.ade20k import CLASSES


def folder(root, **options):
    return ADE20K(root=str(root), **{"size": 16, **options})


@pytest.mark.parametrize("prefix", ["", "ADEChallengeData2016/"])
def test_files_count_from_one_and_zero_is_unknown(ade20k_root, prefix):
    root = ade20k_root({"training": 10, "validation": 3}, prefix)
    data = folder(root).load()
    assert [len(part) for part in (data.train, data.validation, data.test)] == [9, 1, 3]
    assert data.test.indices.tolist() == [10, 11, 12]
    samples = data.source.read_samples(np.arange(13), lambda sample, place: sample)
    for file, (_, mask) in zip(data.source.masks, samples, strict=True):
        written = np.asarray(Image.open(root / file.name)).astype(int)
        assert mask.values.tolist() == np.where(written == 0, 255, written - 1).tolist()
    assert data.source.names[0] == f"{prefix}images/training/ADE_00000000.jpg"


def test_there_are_150_classes_with_names_of_their_own():
    assert len(set(CLASSES)) == len(CLASSES) == 150
    known = {0: "wall", 12: "person", 20: "car", 127: "bicycle", 136: "traffic light", 149: "flag"}
    assert {label: CLASSES[label] for label in known} == known


def test_a_value_beyond_the_classes_is_refused(ade20k_root):
    root = ade20k_root({"training": 10, "validation": 3}, "")
    write_pair(root, "images/training/ADE_00000003.jpg", "annotations/training/ADE_00000003.png", [151])
    with pytest.raises(
        ValueError, match="must hold class indices from 1 to 150, and 0 where it is not known, found 151"
    ):
        folder(root).load().source.read_samples(np.array([3]), lambda sample, place: sample)


def test_wrong_folders_are_refused(ade20k_root):
    with pytest.raises(ValueError, match=r"root must hold annotations/training/ and annotations/validation/, itself"):
        folder(ade20k_root({"training": 2}))
