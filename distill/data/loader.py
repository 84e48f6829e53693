"""Batches of a subset: the same ones on any number of workers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distill.batch import Batch
from distill.counter_random import derive_seed, sort_keys
from distill.data.augmentation import Chain, augment, chain_of, on_arrival, read_annotated, read_images
from distill.data.source import Indices
from distill.data.subset import Subset
from distill.data.transforms.base import Transform
from distill.objects import Labels

_NUM_AHEAD = 2

Targets = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class _Read:
    """What was read of a batch, on the CPU; in pinned memory where a GPU awaits it."""

    images: Tensor
    labels: Labels
    left: Chain
    """Augmentation that runs on the device."""
    targets: Targets


class TargetReader(Protocol):
    """Gives what was stored of the teacher for one view of a split."""

    def read(self, positions: Indices) -> Targets:
        """Return ``[position, ...]`` by path and layer, on the CPU."""
        ...


class Loader:
    """Gives this rank's share of every batch, augmented and normalised on the device.

    For a GPU batches are read ahead as uint8 in pinned memory; it augments them itself, as far as single images allow.

    ``batch_size`` is **global**: of each batch of that size rank ``r`` of ``N`` takes samples ``r, r + N, ...``, so
    that all ranks together see exactly the batch that one process would see. The order of an epoch depends on
    (data seed, epoch) alone. Without ``drop_last`` nothing is padded or seen twice: shares of the last batch
    differ by at most one sample, and a rank without any gives one batch less.

    Args:
        subset: the samples.
        batch_size: of all ranks together; a multiple of ``world_size``.
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
        transforms: the augmentation; none for evaluation.
        data_seed: seed of order and augmentation.
        shuffle: whether to mix the samples anew each epoch; otherwise they keep the subset's order.
        drop_last: whether to leave out what does not fill a batch.
        rank: of this process.
        world_size: number of processes.
        device: where the batches go.
        channels_last: whether to lay out images channels-last.
        views: number of augmentations of each image; epoch ``e`` shows number ``e % views``. ``None``: a new one each
            epoch.

    Raises:
        ValueError: the numbers do not fit together, or ``drop_last`` would drop everything.
    """

    def __init__(
        self,
        subset: Subset,
        *,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        transforms: Sequence[Transform] = (),
        data_seed: int = 0,
        shuffle: bool,
        drop_last: bool,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device,
        channels_last: bool = False,
        views: int | None = None,
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in 0..{world_size - 1}, found {rank}")
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size is shared out over the workers and must be a multiple of their number, {world_size}, "
                f"found {batch_size}"
            )
        if drop_last and len(subset) < batch_size:
            raise ValueError(
                f"batch_size must be at most the number of training images, {len(subset):,}, found {batch_size:,}: "
                "not one batch would be full"
            )
        if shuffle and not drop_last and world_size > 1:
            raise ValueError(
                f"drop_last must be true in training on several workers ({world_size}): the last batch could leave "
                "one without samples while the others wait for it"
            )
        self.subset = subset
        self.batch_size = batch_size
        self.transforms = tuple(transforms)
        self.data_seed = data_seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.device = device
        self.channels_last = channels_last
        self.views = views
        self._mean = torch.tensor(mean, dtype=torch.float32, device=device)[:, None, None]
        self._std = torch.tensor(std, dtype=torch.float32, device=device)[:, None, None]
        # A transform on torch's global generator must not run beside a training step that uses it too.
        self._reads_ahead = (subset.source.differs_in_size or device.type == "cuda") and not any(
            each.uses_global_random for each in transforms
        )

    def view(self, epoch: int) -> int:
        """Return which of the ``views`` an epoch shows; without a limit, each epoch its own."""
        return epoch if self.views is None else epoch % self.views

    def batch_at(self, positions: Indices, epoch: int) -> Batch:
        """Return the images at these positions of the split as ``epoch`` shows them."""
        return self._batch(positions, self._read(positions, epoch))

    def nth(self, number: int) -> Batch:
        """Return this rank's share of one batch of the endless row of epochs, without making those before it.

        Args:
            number: from 0; the batches of an epoch are followed by those of the next.

        Raises:
            ValueError: this rank has no batch in any epoch.
        """
        if not len(self):
            raise ValueError(
                f"there must be an image for each of the {self.world_size} workers that asks for a batch, found "
                f"{len(self.subset):,}: rank {self.rank} gets none"
            )
        epoch, place = divmod(number, len(self))
        return self.batch_at(self._share(self._order(epoch), place), epoch)

    def __len__(self) -> int:
        """Return how many batches this rank gives in an epoch."""
        num_full, rest = divmod(len(self.subset), self.batch_size)
        return num_full + (not self.drop_last and rest > self.rank)

    def epoch(self, epoch: int, targets: TargetReader | None = None) -> Iterator[Batch]:
        """Give the batches of one epoch.

        Args:
            epoch: counted from 0; it decides order and augmentation.
            targets: reads what was stored of the teacher for this epoch's view; the batches carry it along.
        """
        shares = self.shares(epoch)
        if not self._reads_ahead:
            for positions in shares:
                yield self._batch(positions, self._read(positions, epoch, targets))
            return
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        try:
            waiting: deque[tuple[Indices, Future[_Read]]] = deque()
            for positions in shares:
                waiting.append((positions, pool.submit(self._read, positions, epoch, targets)))
                if len(waiting) > _NUM_AHEAD:
                    first, read = waiting.popleft()
                    yield self._batch(first, read.result())
            for positions, read in waiting:
                yield self._batch(positions, read.result())
        finally:
            pool.shutdown(cancel_futures=True)

    def shares(self, epoch: int) -> Iterator[Indices]:
        """Give the positions in the split of this rank's share of each batch."""
        order = self._order(epoch)
        for place in range(len(self)):
            yield self._share(order, place)

    def _share(self, order: Indices, place: int) -> Indices:
        """Return this rank's positions of the batch in this place of an epoch."""
        start = place * self.batch_size
        return order[start + self.rank : start + self.batch_size : self.world_size]

    def _order(self, epoch: int) -> Indices:
        """Return the positions of all ranks' samples in the order of this epoch."""
        if not self.shuffle:
            return np.arange(len(self.subset), dtype=np.int64)
        keys = sort_keys(derive_seed(self.data_seed, "order"), epoch, self.subset.indices)
        return np.argsort(keys, kind="stable").astype(np.int64)

    def _read(self, positions: Indices, epoch: int, targets: TargetReader | None = None) -> _Read:
        """Read images, augmented as far as that has to happen on the CPU, and their targets."""
        chain = chain_of(
            self.transforms, self.subset.indices[positions], data_seed=self.data_seed, epoch=self.view(epoch)
        )
        labels: Labels
        if self.subset.source.annotation is None:
            first = on_arrival(chain, differs_in_size=self.subset.source.differs_in_size, device=self.device)
            images = read_images(self.subset, positions, chain[:first])
            labels = torch.from_numpy(self.subset.labels[positions])
        else:
            first = len(chain)
            images, labels = read_annotated(self.subset, positions, chain)
        stored = {} if targets is None else targets.read(positions)
        if self.device.type != "cuda":
            return _Read(images, labels, chain[first:], stored)
        pinned = {name: {layer: value.pin_memory() for layer, value in each.items()} for name, each in stored.items()}
        return _Read(images.pin_memory(), labels.pin_memory(), chain[first:], pinned)

    def _batch(self, positions: Indices, read: _Read) -> Batch:
        """Augment and normalise on the device; the latter in the order of torchvision: to 0..1, minus mean, by std."""
        images = augment(read.images.to(self.device, non_blocking=True), read.left)
        scaled = images if images.is_floating_point() else images.to(torch.float32).div_(255)
        normalised = (scaled - self._mean).div_(self._std)
        return Batch(
            images=normalised,
            labels=read.labels,
            indices=torch.from_numpy(self.subset.indices[positions]),
            targets=read.targets,
        ).to(self.device, channels_last=self.channels_last)
