import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from distill.counter_random import uniform
from distill.data.transforms import EachImage

IMAGES = torch.randint(0, 256, (30, 3, 10, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("transform", [v2.RandAugment(), v2.ColorJitter(0.4, 0.4, 0.4, 0.1), v2.RandomRotation(30)])
def test_each_image_is_transformed_under_the_seed_of_its_draws(transform):
    draws = uniform(0, 0, np.arange(30), 2)
    result = EachImage(transform)(IMAGES, draws)
    for image, (high, low), view in zip(IMAGES, draws.tolist(), result, strict=True):
        torch.manual_seed(int(high * 2**31) * 2**32 + int(low * 2**32))
        assert view.equal(transform(image))


def test_share_of_flips_is_torchvision_s():
    images = torch.tensor([0.0, 1.0]).expand(2000, 1, 1, 2)
    flips = EachImage(v2.RandomHorizontalFlip(0.3))(images, uniform(1, 0, np.arange(2000), 2))[:, 0, 0, 0]
    assert flips.mean() == pytest.approx(0.3, abs=0.045)  # 4 standard errors


def test_the_global_generator_survives_a_failure():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="larger than"):
        EachImage(v2.RandomCrop(20))(IMAGES, uniform(0, 0, np.arange(30), 2))
    assert torch.get_rng_state().equal(state)


def test_images_of_differing_sizes_are_refused():
    with pytest.raises(ValueError, match="images of one size, but RandomResize gave"):
        EachImage(v2.RandomResize(5, 9))(IMAGES, uniform(0, 0, np.arange(30), 2))


def test_only_a_resized_crop_fixes_the_size():
    assert EachImage(v2.RandomResizedCrop(8)).fixes_size
    assert not EachImage(v2.RandAugment()).fixes_size
