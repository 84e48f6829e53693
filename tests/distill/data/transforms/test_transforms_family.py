"""What every transform of the registry promises."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from distill.counter_random import uniform
from distill.data import transforms
from distill.data.transforms.base import Transform

EXAMPLES = {
    "ColorJitter": lambda: transforms.ColorJitter(0.5, 0.5, 0.5),
    "EachImage": lambda: transforms.EachImage(v2.RandomAffine(30, translate=(0.2, 0.2))),
    "RandomCrop": lambda: transforms.RandomCrop(padding=3),
    "RandomErasing": lambda: transforms.RandomErasing(p=0.8),
    "RandomHorizontalFlip": lambda: transforms.RandomHorizontalFlip(),
    "RandomResizedCrop": lambda: transforms.RandomResizedCrop(11),
    "RandomScaleCrop": lambda: transforms.RandomScaleCrop([9, 12], (0.3, 1.5)),
}


@pytest.fixture(params=transforms.__all__)
def transform(request):
    return EXAMPLES[request.param]()


@pytest.fixture(params=["uint8", "float"])
def images(request):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 14, 17), dtype=torch.uint8, generator=generator)
    return images if request.param == "uint8" else images / 255


def draws(transform, count, epoch=0):
    return uniform(1, epoch, np.arange(count), transform.num_draws)


def test_registry_is_sorted_and_holds_transforms():
    assert transforms.__all__ == sorted(transforms.__all__)
    assert all(issubclass(getattr(transforms, name), Transform) for name in transforms.__all__)


def test_each_image_depends_on_its_own_row_alone(transform, images):
    rows = draws(transform, 40)
    whole = transform(images, rows)
    some = torch.tensor([31, 4, 7])
    assert transform(images[some], rows[some]).equal(whole[some])
    for place in (0, 39):
        assert transform(images[place : place + 1], rows[place : place + 1])[0].equal(whole[place])


def test_type_stays_and_the_input_is_left_alone(transform, images):
    before = images.clone()
    result = transform(images, draws(transform, 40))
    assert images.equal(before)
    assert result.dtype == images.dtype
    assert result.shape[:2] == images.shape[:2]


def test_one_image_under_different_draws_gives_different_views(transform, images):
    same = images[:1].expand(40, -1, -1, -1)
    views = transform(same, draws(transform, 40))
    assert len({view.numpy().tobytes() for view in views}) > 1
    others = transform(same, draws(transform, 40, epoch=1))
    assert not others.equal(views)


def test_the_global_generator_is_left_as_it_was(transform, images):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    transform(images, draws(transform, 40))
    assert torch.rand(3).equal(expected)


@pytest.mark.parametrize("extreme", [0.0, 1 - 2**-32])
def test_extreme_draws_are_legal(transform, images, extreme):
    result = transform(images, torch.full((40, transform.num_draws), extreme, dtype=torch.float64))
    assert len(result) == 40


@pytest.mark.parametrize(
    "name", [name for name in transforms.__all__ if not getattr(transforms, name).uses_global_random]
)
def test_what_needs_no_generator_runs_on_any_device(name, images):
    """The meta device stands for a GPU: it refuses tensors of another device, and to be looked at."""
    transform = EXAMPLES[name]()
    there = transform(images.to("meta"), draws(transform, 40))
    assert there.is_meta
    assert (there.shape, there.dtype) == (transform(images, draws(transform, 40)).shape, images.dtype)
