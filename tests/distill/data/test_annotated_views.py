"""How an annotated image is augmented follows from (data seed, epoch, image) alone."""

import numpy as np
import pytest
import torch
from dense_scene import CPU, NUM_TRAIN, SEGMENTATION, DenseScene

from distill.batch import Batch
from distill.data import Loader, Subset

BOTH = pytest.mark.parametrize("family", [SEGMENTATION, "RetinaNet"])


def loader_of(scene, indices, **options):
    options = {"transforms": scene.loader().transforms, "shuffle": True, "batch_size": 2, "data_seed": 5, **options}
    return Loader(
        Subset(scene.source, np.asarray(indices)),
        mean=(0.4,) * 3,
        std=(0.25,) * 3,
        drop_last=False,
        device=CPU,
        **options,
    )


def row(batch: Batch, place):
    labels = batch.labels
    known = (
        (labels[place],)
        if torch.is_tensor(labels)
        else (labels.boxes[place], labels.labels[place], labels.ignored[place])
    )
    return batch.images[place], *known


def views(loader, epoch=2):
    return {
        index: row(batch, place) for batch in loader.epoch(epoch) for place, index in enumerate(batch.indices.tolist())
    }


def differing(ours, theirs):
    return [
        index
        for index in ours.keys() & theirs.keys()
        if not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(ours[index], theirs[index], strict=True))
    ]


@BOTH
def test_nothing_but_seed_epoch_and_image_decides_a_view(family):
    scene, some = DenseScene(family), [1, 4, 5, 8, 13]
    whole = views(loader_of(scene, range(NUM_TRAIN)))
    torch.manual_seed(99)
    others = [
        loader_of(scene, some),  # other neighbours and positions
        loader_of(scene, some, batch_size=5, shuffle=False),
        loader_of(scene, range(NUM_TRAIN), views=3),
        *(loader_of(scene, some, shuffle=False, rank=rank, world_size=2) for rank in range(2)),
    ]
    seen = [views(each) for each in others]
    assert [len(each) for each in seen] == [5, 5, NUM_TRAIN, 3, 2]
    assert seen[3].keys().isdisjoint(seen[4])
    assert [differing(whole, each) for each in seen] == [[]] * 5
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 2)
    try:
        assert differing(whole, views(others[0])) == []
    finally:
        torch.set_num_threads(threads)


@BOTH
def test_another_epoch_or_seed_shows_another_view(family):
    scene = DenseScene(family)
    loader = loader_of(scene, range(NUM_TRAIN))
    whole = views(loader)
    assert len(differing(whole, views(loader, epoch=3))) > NUM_TRAIN // 2
    assert len(differing(whole, views(loader_of(scene, range(NUM_TRAIN), data_seed=6)))) > NUM_TRAIN // 2
