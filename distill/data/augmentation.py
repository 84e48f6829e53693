"""Reading images and augmenting them, each from its own random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.counter_random import derive_seed, uniform
from distill.data.source import Indices
from distill.data.subset import Subset
from distill.data.transforms.base import Transform


def read_augmented(
    subset: Subset, positions: Indices, *, transforms: Sequence[Transform], data_seed: int, epoch: int
) -> Tensor:
    """Read samples and augment them; what comes out for an image depends on (data seed, epoch, image) alone.

    Each transform has its own columns of random numbers, so the transforms of a chain are independent. Images that
    differ in size are taken one by one up to the transform that brings them to one size, and where there is none
    they are fitted first.

    Args:
        subset: where the samples are.
        positions: ``[batch]``, positions in the subset.
        transforms: what to apply, in order.
        data_seed: seed of the augmentation.
        epoch: from 0.

    Returns:
        ``[batch, channel, height, width]``, uint8 unless a transform changed that.
    """
    widths = [transform.num_draws for transform in transforms]
    seed = derive_seed(data_seed, "augmentation")
    draws = torch.split(uniform(seed, epoch, subset.indices[positions], sum(widths)), widths, dim=1)
    chain = list(zip(transforms, draws, strict=True))
    num_single = next((place + 1 for place, each in enumerate(transforms) if each.fixes_size), 0)
    if subset.source.differs_in_size:
        images = _read_single(subset, positions, chain[:num_single])
        chain = chain[num_single:]
    else:
        images = torch.as_tensor(subset.read(positions))
    for transform, own in chain:
        images = transform(images, own)
    return images


def _read_single(subset: Subset, positions: Indices, chain: Sequence[tuple[Transform, Tensor]]) -> Tensor:
    """Read samples of differing sizes and bring them to one, image by image."""
    source = subset.source

    def view(image: Tensor, place: int) -> Tensor:
        if not chain:
            return source.fit(image)
        images = image[None]
        for transform, draws in chain:
            images = transform(images, draws[place : place + 1])
        return images[0]

    if any(transform.uses_global_random for transform, _ in chain):
        return torch.stack([view(image, place) for place, image in enumerate(subset.read(positions))])
    return torch.stack(source.read_views(subset.indices[positions], view))
