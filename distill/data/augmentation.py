"""Reading images and augmenting them, each from its own random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.counter_random import derive_seed, uniform
from distill.data.annotation import Sample
from distill.data.source import Indices
from distill.data.subset import Subset
from distill.data.transforms.base import Transform
from distill.objects import Labels

Chain = list[tuple[Transform, Tensor]]
"""Transforms in order, each with its random numbers ``[batch, num_draws]`` on the CPU."""


def chain_of(transforms: Sequence[Transform], indices: Indices, *, data_seed: int, epoch: int) -> Chain:
    """Draw the random numbers of a batch; those of an image depend on (data seed, epoch, image) alone.

    Each transform has its own columns, so the transforms of a chain are independent.

    Args:
        transforms: what to apply, in order.
        indices: ``[batch]``, of the images in the whole data set.
        data_seed: seed of the augmentation.
        epoch: from 0.
    """
    widths = [transform.num_draws for transform in transforms]
    numbers = uniform(derive_seed(data_seed, "augmentation"), epoch, indices, sum(widths))
    return list(zip(transforms, torch.split(numbers, widths, dim=1), strict=True))


def on_arrival(chain: Chain, *, differs_in_size: bool, device: torch.device) -> int:
    """Return how many of a chain's transforms have to run while the images are read, on the CPU.

    Images that differ in size become a batch only behind the transform that brings them to one size. Where there is a
    GPU, all else runs there, but for what borrows the CPU's generator, and what comes before it.
    """
    if device.type == "cpu":
        return len(chain)
    places = [place for place, (transform, _) in enumerate(chain, start=1) if transform.uses_global_random]
    return max([_num_single(chain) if differs_in_size else 0, *places])


def read_images(subset: Subset, positions: Indices, chain: Chain) -> Tensor:
    """Read samples and augment them on the CPU.

    Images that differ in size are taken one by one up to the transform that brings them to one size, and where there
    is none they are fitted first.

    Args:
        subset: where the samples are.
        positions: ``[batch]``, positions in the subset.
        chain: what to apply.

    Returns:
        ``[batch, channel, height, width]``, uint8 unless a transform changed that.
    """
    if not subset.source.differs_in_size:
        return augment(torch.as_tensor(subset.read(positions)), chain)
    num_single = _num_single(chain)
    return augment(_read_single(subset, positions, chain[:num_single]), chain[num_single:])


def read_annotated(subset: Subset, positions: Indices, chain: Chain) -> tuple[Tensor, Labels]:
    """Read annotated samples, and augment image and annotation together, sample by sample, on the CPU.

    Where no transform of the chain brings images to one size they are fitted first; and whatever leaves the chain in
    another size is fitted in the end.

    Args:
        subset: where the samples are.
        positions: ``[batch]``, positions in the subset.
        chain: all that is to be applied.

    Returns:
        ``[batch, channel, height, width]``, uint8 unless a transform changed that, and the annotations.
    """
    source = subset.source
    assert source.annotation is not None
    fits_first = _num_single(chain) == 0

    def view(sample: Sample, place: int) -> Sample:
        if fits_first:
            sample = source.fit_sample(sample)
        for transform, draws in chain:
            sample = transform.together(sample, draws[place])
        return source.fit_sample(sample)

    indices = subset.indices[positions]
    if any(transform.uses_global_random for transform, _ in chain):
        plain = source.read_samples(indices, lambda sample, place: sample)
        samples = [view(sample, place) for place, sample in enumerate(plain)]
    else:
        samples = source.read_samples(indices, view)
    images = torch.stack([sample.image for sample in samples])
    return images, source.annotation.collate([sample.annotation for sample in samples])


def augment(images: Tensor, chain: Chain) -> Tensor:
    """Apply a chain to a batch, where it is."""
    for transform, draws in chain:
        images = transform(images, draws)
    return images


def _num_single(chain: Chain) -> int:
    """Return how many transforms it takes until images are of one size."""
    return next((place for place, (transform, _) in enumerate(chain, start=1) if transform.fixes_size), 0)


def _read_single(subset: Subset, positions: Indices, chain: Chain) -> Tensor:
    """Read samples of differing sizes and bring them to one, image by image."""
    source = subset.source

    def view(image: Tensor, place: int) -> Tensor:
        if not chain:
            return source.fit(image)
        return augment(image[None], [(transform, draws[place : place + 1]) for transform, draws in chain])[0]

    if any(transform.uses_global_random for transform, _ in chain):
        return torch.stack([view(image, place) for place, image in enumerate(subset.read(positions))])
    return torch.stack(source.read_views(subset.indices[positions], view))
