import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from distill.data.augmentation import chain_of, on_arrival, read_images
from distill.data.transforms import (
    ColorJitter,
    EachImage,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
)

CHAIN = [RandomCrop(padding=4), RandomHorizontalFlip()]
IN_ANOTHER_PROCESS = """
import hashlib, numpy as np, torch
from distill.data.augmentation import chain_of, read_images
from distill.data.memory_source import MemorySource
from distill.data.subset import Subset
from distill.data.transforms import *
torch.manual_seed(99)
images = (torch.arange(64 * 3 * 12 * 10) * 7919 % 251).to(torch.uint8).reshape(64, 3, 12, 10)
subset = Subset(MemorySource(images, np.arange(64) % 4, list("abcd")), np.arange(64))
chain = [ColorJitter(0.4, 0.4, 0.4), RandomResizedCrop(9), RandomHorizontalFlip(), RandomErasing()]
def view(i):
    positions = np.array([i])
    return read_images(subset, positions, chain_of(chain, subset.indices[positions], data_seed=3, epoch=2))
out = [view(i) for i in reversed(range(64))]
print(hashlib.sha256(torch.cat(out[::-1]).numpy().tobytes()).hexdigest())
"""


def augment(subset, positions, chain=CHAIN, *, data_seed=0, epoch=0):
    positions = np.asarray(positions)
    return read_images(subset, positions, chain_of(chain, subset.indices[positions], data_seed=data_seed, epoch=epoch))


def test_draws_differ_within_a_batch(memory_subset):
    subset = memory_subset()
    subset.source.images[:] = subset.source.images[0].clone()  # one and the same image under 64 indices
    views = augment(subset, range(64))
    assert len({view.numpy().tobytes() for view in views}) > 40  # of 9 * 9 crops, mirrored or not


def test_the_same_image_gets_the_same_draw_in_any_batch(memory_subset):
    subset = memory_subset()
    whole = augment(subset, range(64))
    assert augment(subset, [17])[0].equal(whole[17])
    assert augment(subset, [63, 17, 2]).equal(whole[[63, 17, 2]])


def test_another_process_one_image_at_a_time_gives_the_same_bits(memory_subset):
    subset = memory_subset()
    subset.source.images = (torch.arange(64 * 3 * 12 * 10) * 7919 % 251).to(torch.uint8).reshape(64, 3, 12, 10)
    chain = [ColorJitter(0.4, 0.4, 0.4), RandomResizedCrop(9), RandomHorizontalFlip(), RandomErasing()]
    here = augment(subset, range(64), chain, data_seed=3, epoch=2)
    printed = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "2"},
    ).stdout
    assert printed.strip() == hashlib.sha256(here.numpy().tobytes()).hexdigest()


def test_transforms_of_a_chain_draw_independently(memory_subset):
    subset = memory_subset(512, (1, 1, 2))
    subset.source.images[:] = torch.tensor([0, 1], dtype=torch.uint8)
    once = augment(subset, range(512), [RandomHorizontalFlip()])[:, 0, 0, 0].bool()
    twice = augment(subset, range(512), [RandomHorizontalFlip(), RandomHorizontalFlip()])[:, 0, 0, 0].bool()
    # Two flips by one and the same draw would cancel; by independent draws they leave half of the images mirrored.
    assert 200 < int(twice.sum()) < 312
    second = once ^ twice
    assert abs(np.corrcoef(once.numpy(), second.numpy())[0, 1]) < 0.18  # 4 standard errors


def test_without_transforms_images_come_as_they_are(memory_subset):
    subset = memory_subset(every=2)
    assert augment(subset, [3, 1], []).equal(subset.source.images[[6, 2]])


GPU = torch.device("cuda")


@pytest.mark.parametrize(
    ("chain", "differs_in_size", "device", "expected"),
    [
        (CHAIN, False, torch.device("cpu"), 2),
        (CHAIN, False, GPU, 0),
        ([RandomResizedCrop(9), RandomHorizontalFlip()], True, GPU, 1),
        ([RandomResizedCrop(9), RandomHorizontalFlip()], False, GPU, 0),
        ([RandomHorizontalFlip(), EachImage(v2.RandomRotation(9)), RandomErasing()], False, GPU, 2),
        ([RandomResizedCrop(9), EachImage(v2.RandomRotation(9)), RandomErasing()], True, GPU, 2),
    ],
)
def test_a_gpu_gets_what_need_not_happen_while_images_are_read(chain, differs_in_size, device, expected):
    links = chain_of(chain, np.arange(3), data_seed=0, epoch=0)
    assert on_arrival(links, differs_in_size=differs_in_size, device=device) == expected
