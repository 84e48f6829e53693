import numpy as np
import pytest
from torchvision import datasets

from distill.data import Cityscapes


def folder(root, **options):
    return Cityscapes(root=str(root), **{"size": [16, 32], **options})


def read_all(data):
    return data.source.read_samples(np.arange(len(data.source)), lambda sample, place: sample)


@pytest.mark.parametrize("part", ["train", "val"])
def test_files_and_classes_are_torchvision_s(cityscapes_root, part):
    root = cityscapes_root({"train": 5, "val": 2, "test": 1})
    data = folder(root).load()
    official = datasets.Cityscapes(str(root), split=part, mode="fine", target_type="semantic")
    pairs = sorted(zip(official.images, official.targets, strict=True))
    some = slice(0, 10) if part == "train" else slice(10, 14)
    assert [str(root / name) for name in data.source.names[some]] == [image for image, _ in pairs]
    assert [str(root / file.name) for file in data.source.masks[some]] == [mask for _, (mask,) in pairs]
    train_ids = {each.id: each.train_id if 0 <= each.train_id < 19 else 255 for each in official.classes}
    by_image = {image: np.asarray(official[place][1]) for place, image in enumerate(official.images)}
    num_classes = set()
    for name, (_, mask) in zip(data.source.names[some], read_all(data)[some], strict=True):
        expected = np.vectorize(train_ids.get)(by_image[str(root / name)])
        assert mask.values.tolist() == expected.tolist()
        num_classes |= set(mask.values.flatten().tolist())
    assert num_classes == {*range(19), 255}
    names = {each.train_id: each.name for each in official.classes}
    assert data.classes == tuple(names[label] for label in range(19))
    assert [len(each) for each in (data.train, data.validation, data.test)] == [9, 1, 4]


def test_masks_of_train_ids_are_taken_as_they_are(cityscapes_root):
    root = cityscapes_root({"train": 5, "val": 2}, masks="labelTrainIds", values=[*range(19), 255])
    data = folder(root, masks="labelTrainIds").load()
    assert {value for sample in read_all(data) for value in sample.annotation.values.flatten().tolist()} == {
        *range(19),
        255,
    }
    with pytest.raises(ValueError, match=r"each image in .*leftImg8bit/train must have its mask in .*gtFine/train"):
        folder(root).load()


def test_an_unknown_id_is_refused(cityscapes_root):
    root = cityscapes_root({"train": 5, "val": 2}, values=[7, 40])
    with pytest.raises(ValueError, match=r"must hold class indices from 7 to 33, and 0, 1, .* found 40"):
        read_all(folder(root).load())


@pytest.mark.parametrize(
    ("parts", "options", "message"),
    [
        ({"train": 1}, {}, "root must hold leftImg8bit/val/, found none in"),
        ({"train": 1, "val": 1}, {"masks": "color"}, "masks must be 'labelIds' or 'labelTrainIds', found 'color'"),
    ],
)
def test_wrong_options_and_folders_are_refused(cityscapes_root, parts, options, message):
    with pytest.raises(ValueError, match=message):
        folder(cityscapes_root(parts), **options)
