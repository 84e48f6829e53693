import os

import numpy as np
import pytest
import torch
from torchvision import datasets

from distill.data import FashionMNIST
from distill.data.split import Split


@pytest.mark.parametrize("folder", ["FashionMNIST/raw", "FashionMNIST", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found_packed_or_not_and_nothing_is_written(fashion_root, folder, packed):
    root = fashion_root(folder, packed=packed)
    before = sorted(path.name for path in root.rglob("*"))
    data = FashionMNIST(root=str(root)).load()
    assert sorted(path.name for path in root.rglob("*")) == before
    assert data.source.images.shape == (80, 1, 28, 28)
    assert data.test.indices.tolist() == list(range(60, 80))
    assert (len(data.validation), len(data.train)) == (6, 54)


def test_content_is_what_torchvision_reads(fashion_root):
    root = fashion_root()
    source = FashionMNIST(root=str(root), channels=3).load().source
    parts = [datasets.FashionMNIST(str(root), train=train, download=False) for train in (True, False)]
    expected = torch.cat([part.data for part in parts])
    assert source.images.equal(expected[:, None].expand(-1, 3, -1, -1))
    assert source.labels.tolist() == torch.cat([part.targets for part in parts]).tolist()
    assert source.classes == tuple(parts[0].classes)


def test_packed_and_unpacked_files_have_one_fingerprint(fashion_root):
    root = fashion_root("unpacked")
    fashion_root("packed", packed=True)
    unpacked, packed = (FashionMNIST(root=str(root / folder)).load() for folder in ("unpacked", "packed"))
    assert packed.fingerprint == unpacked.fingerprint


def test_root_defaults_to_the_environment_variable(fashion_root, monkeypatch):
    monkeypatch.setenv("DISTILLERY_DATA", str(fashion_root(packed=True)))
    assert len(FashionMNIST().load().source) == 80


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_refused_at_construction(fashion_root, name):
    root = fashion_root()
    (root / "FashionMNIST" / "raw" / name).unlink()
    with pytest.raises(ValueError, match=f"root must hold FashionMNIST/raw/{name}.*{root}.*download: true"):
        FashionMNIST(root=str(root))
    assert FashionMNIST(root=str(root), download=True).num_classes == 10  # the files may come when loading


def test_a_split_that_asks_for_too_much_is_refused_at_construction(fashion_root):
    with pytest.raises(ValueError, match=r"split\.train .*found 60 of 54"):
        FashionMNIST(root=str(fashion_root()), split=Split(train=60))


def test_labels_of_another_data_set_are_refused(fashion_root):
    root = fashion_root()
    labels = root / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:4] + (59).to_bytes(4, "big") + labels.read_bytes()[8:-1])
    with pytest.raises(ValueError, match="60 images and 59 labels"):
        FashionMNIST(root=str(root)).load()


def test_images_of_another_size_are_refused(fashion_root):
    root = fashion_root()
    images = root / "FashionMNIST" / "raw" / "t10k-images-idx3-ubyte"
    content = images.read_bytes()
    images.write_bytes(content[:8] + (14).to_bytes(4, "big") + (56).to_bytes(4, "big") + content[16:])
    with pytest.raises(ValueError, match=r"28x28 pixels, found \(14, 56\)"):
        FashionMNIST(root=str(root)).load()


@pytest.mark.skipif("DISTILLERY_DATA" not in os.environ, reason="DISTILLERY_DATA names no folder with Fashion-MNIST")
def test_the_real_data():
    data = FashionMNIST(split=Split(validation=5000, train=2000, teacher="rest")).load()
    assert np.bincount(data.source.labels).tolist() == [7000] * 10
    assert [len(part) for part in (data.train, data.validation, data.teacher_train, data.test)] == [
        2000,
        5000,
        53_000,
        10_000,
    ]
    assert np.bincount(data.train.labels).tolist() == [200] * 10
    pixels = data.source.images[:60_000].double() / 255
    assert data.mean == pytest.approx([pixels.mean().item()], abs=5e-4)
    assert data.std == pytest.approx([pixels.std().item()], abs=5e-4)
