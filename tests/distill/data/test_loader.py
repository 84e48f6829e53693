import threading

import numpy as np
import pytest
import torch
from torchvision.transforms import functional, v2

from distill.data import ImageFolder
from distill.data.loader import Loader
from distill.data.transforms import EachImage, RandomCrop, RandomHorizontalFlip

CPU = torch.device("cpu")


def training(subset, **options):
    defaults = {"batch_size": 8, "shuffle": True, "drop_last": True, "transforms": [RandomCrop(padding=2)]}
    return Loader(subset, mean=[0.5] * 3, std=[0.25] * 3, **{"device": CPU, **defaults, **options})


def evaluation(subset, **options):
    return training(subset, **{"shuffle": False, "drop_last": False, "transforms": (), **options})


def indices(batches):
    return [batch.indices.tolist() for batch in batches]


def flat(batches):
    return [index for batch in batches for index in batch]


def images_by_index(loader, epoch=0):
    return {
        int(index): image
        for batch in loader.epoch(epoch)
        for index, image in zip(batch.indices, batch.images, strict=True)
    }


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_are_normalised_as_by_torchvision(memory_subset, channels_last):
    subset = memory_subset()
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    loader = Loader(
        subset,
        batch_size=16,
        mean=mean,
        std=std,
        shuffle=False,
        drop_last=False,
        device=CPU,
        channels_last=channels_last,
    )
    for number, batch in enumerate(loader.epoch(0)):
        some = slice(16 * number, 16 * number + 16)
        pixels = [functional.to_tensor(image.permute(1, 2, 0).numpy()) for image in subset.source.images[some]]
        assert batch.images.equal(functional.normalize(torch.stack(pixels), mean, std))
        assert batch.images.is_contiguous(memory_format=torch.channels_last) == channels_last
        assert batch.labels.tolist() == subset.labels[some].tolist()
        assert batch.labels.dtype == batch.indices.dtype == torch.int64


def test_indices_are_positions_in_the_source(memory_subset):
    subset = memory_subset(every=3)  # positions 0, 3, ... 63
    batches = list(evaluation(subset).epoch(0))
    assert flat(indices(batches)) == list(range(0, 64, 3))
    images = subset.source.images
    for batch in batches:
        expected = (images[batch.indices].float() / 255 - 0.5) / 0.25
        assert batch.images.allclose(expected, atol=1e-6)
        assert batch.labels.tolist() == [index % 4 for index in batch.indices.tolist()]


def test_training_drops_the_last_batch_and_sees_each_sample_once(memory_subset):
    loader = training(memory_subset(61))
    batches = indices(loader.epoch(0))
    assert [len(batch) for batch in batches] == [8] * 7
    assert len(loader) == 7
    assert len(set(flat(batches))) == 56


def test_order_depends_on_data_seed_and_epoch_alone(memory_subset):
    subset = memory_subset()
    order = indices(training(subset).epoch(3))
    assert indices(training(subset, transforms=()).epoch(3)) == order
    assert indices(training(subset).epoch(4)) != order
    assert indices(training(subset, data_seed=1).epoch(3)) != order
    assert flat(indices(training(subset, batch_size=16).epoch(3))) == flat(order)


def test_order_is_a_fair_shuffle(memory_subset):
    loader = training(memory_subset(4), batch_size=1)
    places = np.zeros((4, 4))
    for epoch in range(400):
        for place, (index,) in enumerate(indices(loader.epoch(epoch))):
            places[place, index] += 1
    assert np.abs(places - 100).max() < 44  # each is binomial with standard deviation 8.7


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_ranks_together_see_the_batches_of_one_process(memory_subset, world_size):
    subset = memory_subset()
    alone = list(training(subset).epoch(2))
    shares = [list(training(subset, rank=rank, world_size=world_size).epoch(2)) for rank in range(world_size)]
    for number, whole in enumerate(alone):
        parts = [share[number] for share in shares]
        assert all(len(part) == 8 // world_size for part in parts)
        for rank, part in enumerate(parts):
            assert part.indices.equal(whole.indices[rank::world_size])
            assert part.images.equal(whole.images[rank::world_size])
            assert part.labels.equal(whole.labels[rank::world_size])


@pytest.mark.parametrize("world_size", [1, 2])
def test_any_batch_of_the_endless_row_is_what_its_epoch_gives(memory_subset, world_size):
    subset = memory_subset(61)
    for rank in range(world_size):
        loader = training(subset, rank=rank, world_size=world_size)
        batches = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
        for number in (20, 3, 7, 6):
            assert loader.nth(number).indices.equal(batches[number].indices)
            assert loader.nth(number).images.equal(batches[number].images)


def test_a_rank_without_any_batch_says_so(memory_subset):
    alone = evaluation(memory_subset(2), rank=2, world_size=4)
    assert list(alone.epoch(0)) == []
    with pytest.raises(ValueError, match=r"an image for each of the 4 workers .*found 2: rank 2 gets none"):
        alone.nth(0)


@pytest.mark.parametrize("count", [61, 56, 57])
def test_evaluation_on_several_ranks_sees_each_sample_exactly_once(memory_subset, count):
    subset = memory_subset(count)
    loaders = [evaluation(subset, rank=rank, world_size=4) for rank in range(4)]
    shares = [indices(loader.epoch(0)) for loader in loaders]
    for rank, (loader, share) in enumerate(zip(loaders, shares, strict=True)):
        assert flat(share) == list(range(rank, count, 4))
        assert len(loader) == len(share)
        assert min(len(batch) for batch in share) >= 1


def test_augmentation_of_an_image_does_not_depend_on_batch_size_or_subset(memory_subset):
    chain = [RandomCrop(padding=3), RandomHorizontalFlip(), EachImage(v2.RandAugment())]
    small = images_by_index(training(memory_subset(), batch_size=4, transforms=chain), epoch=5)
    large = images_by_index(training(memory_subset(every=2), batch_size=16, transforms=chain), epoch=5)
    assert set(large) < set(small)
    assert all(image.equal(small[index]) for index, image in large.items())


def test_augmentation_changes_with_the_epoch_and_the_data_seed(memory_subset):
    subset = memory_subset()
    first = images_by_index(training(subset), epoch=0)
    for other in (images_by_index(training(subset), epoch=1), images_by_index(training(subset, data_seed=1))):
        assert sum(not image.equal(first[index]) for index, image in other.items()) > 48


@pytest.fixture
def files(image_root):
    return ImageFolder(root=str(image_root({"train": 10})), size=16).load()


def test_reading_ahead_gives_the_same_batches_and_leaves_no_thread(files):
    def loader():
        return training(files.train, batch_size=4, transforms=files.transforms)

    before = threading.active_count()
    whole = list(loader().epoch(0))
    assert len(whole) == 5  # of 22 samples
    started = loader().epoch(0)
    assert next(started).images.equal(whole[0].images)
    started.close()
    assert threading.active_count() == before


def test_a_device_augments_and_normalises_itself(memory_subset):
    loader = training(memory_subset(), device=torch.device("meta"))
    assert loader.transforms
    batch = next(iter(loader.epoch(0)))
    here = next(iter(training(memory_subset()).epoch(0)))
    assert batch.images.is_meta
    assert (batch.images.shape, batch.images.dtype) == (here.images.shape, here.images.dtype)


def test_a_damaged_file_stops_the_epoch_and_is_named(files):
    name = files.source.names[files.train.indices[3]]
    (files.source.root.path / name).write_bytes(b"nothing")
    with pytest.raises(ValueError, match=name):
        list(evaluation(files.train, batch_size=2).epoch(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 65}, "batch_size must be at most the number of training images, 64, found 65"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 6, "world_size": 4}, "multiple of their number, 4, found 6"),
        ({"rank": 2, "world_size": 2}, r"rank must be in 0\.\.1, found 2"),
        ({"drop_last": False, "world_size": 2}, "drop_last must be true"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(memory_subset, options, message):
    with pytest.raises(ValueError, match=message):
        training(memory_subset(), **options)
