import numpy as np
import pytest
import torch
from torchvision import datasets

from distill.data import CIFAR10, CIFAR100
from distill.data.transforms import RandomCrop, RandomHorizontalFlip

CASES = [(CIFAR10, 10, datasets.CIFAR10), (CIFAR100, 100, datasets.CIFAR100)]


@pytest.mark.parametrize(("dataset", "num_classes", "reader"), CASES)
def test_content_is_what_torchvision_gives_image_by_image(cifar_root, dataset, num_classes, reader):
    root = str(cifar_root(num_classes))
    data = dataset(root=root).load()
    official = [image_and_label for train in (True, False) for image_and_label in reader(root, train=train)]
    assert data.num_classes == num_classes
    assert data.source.images.shape == (len(official), 3, 32, 32)
    expected = torch.from_numpy(np.stack([np.asarray(image) for image, _ in official])).permute(0, 3, 1, 2)
    assert data.source.images.equal(expected)
    assert data.source.labels.tolist() == [label for _, label in official]
    assert data.test.indices.tolist() == list(range(len(official) - data.source.num_test, len(official)))
    assert data.classes[:2] == ("class 0", "class 1")


def test_defaults_follow_the_recipes(cifar_root):
    dataset = CIFAR100(root=str(cifar_root(100)))
    assert [value * 255 for value in dataset.mean] == pytest.approx([129.304, 124.070, 112.434])
    assert [value * 255 for value in dataset.std] == pytest.approx([68.170, 65.392, 70.418])
    crop, flip = dataset.transforms
    assert isinstance(crop, RandomCrop)
    assert (crop.padding, crop.size) == (4, None)
    assert isinstance(flip, RandomHorizontalFlip)
    assert flip.p == 0.5


@pytest.mark.parametrize(("dataset", "num_classes", "reader"), CASES)
def test_missing_files_are_refused_at_construction(tmp_path, dataset, num_classes, reader):
    message = f"root must hold {reader.base_folder}/{reader.train_list[0][0]} .*{reader.filename}.*{tmp_path}"
    with pytest.raises(ValueError, match=message):
        dataset(root=str(tmp_path))
    assert dataset(root=str(tmp_path), download=True).num_classes == num_classes


@pytest.mark.parametrize("damaged", ["data_batch_3", "batches.meta"])
def test_damaged_files_are_named_and_never_unpickled(cifar_root, damaged):
    root = cifar_root(10)
    path = root / "cifar-10-batches-py" / damaged
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=f"published MD5, found others: {path}; "):
        CIFAR10(root=str(root)).load()
