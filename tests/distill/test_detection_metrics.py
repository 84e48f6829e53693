"""Metrics of detections by hand, and on ranks."""

import math

import pytest
import torch
from detector_samples import CLASSES, make, scenes
from on_ranks import on_ranks
from torch import nn

from distill.batch import Batch
from distill.objects import Objects
from distill.tasks import Detection
from distill.tasks.detectors import OwnDetector

TASK = Detection()
CPU = torch.device("cpu")


class Told(OwnDetector):
    """Finds what stands in the image: each column is a box, its score and its class; scores of 0 are nothing."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images):
        return {"": images[:, 0] * self.scale}

    def losses(self, parts, targets):
        return {"sum": (parts[""][:, 4].sum(dim=1) * torch.tensor([len(each["labels"]) for each in targets])).mean()}

    def detections(self, parts):
        return [
            {"boxes": each[:4, each[4] > 0].T, "scores": each[4, each[4] > 0], "labels": each[5, each[4] > 0].long()}
            for each in parts[""].detach()
        ]


def told(*images):
    """Return a batch: for each image what is found, (box, score, label), and what is there, (box, label, crowd)."""
    most = max([len(found) for found, _ in images] + [1])
    pictures = torch.zeros(len(images), 1, 6, most)
    labelled = []
    for number, (found, there) in enumerate(images):
        for column, (box, score, label) in enumerate(found):
            pictures[number, 0, :, column] = torch.tensor([*box, score, label])
        boxes = torch.tensor([box for box, _, _ in there]).reshape(-1, 4).float()
        labels = torch.tensor([label for _, label, _ in there]).long()
        labelled.append((boxes, labels, torch.tensor([crowd for _, _, crowd in there]).bool()))
    return Batch(pictures, Objects.of(labelled), torch.arange(len(images)))


def measured(batch, model=None, classes=("__background__", "cat", "dog")):
    metrics = TASK.metrics(classes, CPU)
    model = (model or Told()).eval()
    metrics.update(TASK.run(model, batch.images), batch, None)
    return metrics.compute()


A, B, FAR = (0, 0, 10, 10), (20, 0, 30, 10), (60, 60, 70, 70)


def test_average_precision_by_hand():
    # Found in this order: A exactly; nothing; B with overlap 0.64. Up to overlap 0.60 both objects are found, with
    # precision 1 up to recall 1/2 (51 of 101 points) and 2/3 beyond (50 points); from 0.65 on only A is.
    values = measured(told(([(A, 0.9, 1), (FAR, 0.8, 1), ((20, 0, 30, 6.4), 0.7, 1)], [(A, 1, False), (B, 1, False)])))
    both, one = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert values["map_50"] == pytest.approx(100 * both)
    assert values["map_75"] == pytest.approx(100 * one)
    assert values["map"] == pytest.approx(100 * (3 * both + 7 * one) / 10)
    assert values["ap/cat"] == values["map"]


def test_the_mean_is_over_the_classes_that_occur():
    values = measured(told(([(A, 0.9, 1), (FAR, 0.9, 2)], [(A, 1, False), (B, 2, False)])))
    assert values["map"] == pytest.approx(50)
    assert (values["ap/cat"], values["ap/dog"]) == (pytest.approx(100), pytest.approx(0))
    values = measured(told(([(A, 0.9, 1), (FAR, 0.9, 2)], [(A, 1, False)])))
    assert values["map"] == pytest.approx(
        100
    )  # a dog was found where none is: it costs dogs alone, which have no value
    assert set(values) == {"loss", "map", "map_50", "map_75", "ap/cat"}


def test_what_falls_on_an_ignored_object_counts_neither_way():
    crowd = (40, 0, 80, 40)
    inside = [((42, 2, 50, 10), 0.95, 1), ((60, 10, 75, 30), 0.94, 1)]
    there = [(A, 1, False), (crowd, 1, True)]
    assert measured(told(([*inside, (A, 0.5, 1)], there)))["map"] == pytest.approx(100)
    assert measured(told(([(A, 0.5, 1)], there)))["map"] == pytest.approx(100)  # nor is it missed
    assert measured(told(([*inside, (A, 0.5, 1)], there[:1])))["map"] < 50


@pytest.mark.parametrize("there", [[(A, 1, False)], []], ids=["missed", "nothing there"])
def test_no_detections_give_zero(there):
    values = measured(told(([], there), ([], [])))
    assert (values["map"], values["map_50"], values["map_75"]) == (0, 0, 0)
    assert math.isfinite(values["loss"])


def test_loss_is_the_mean_over_the_images_each_by_itself():
    batch = told(([(A, 0.5, 1)], [(A, 1, False)]), ([(A, 0.25, 1)], [(A, 1, False), (B, 1, False), (FAR, 1, True)]))
    assert measured(batch)["loss"] == pytest.approx((0.5 * 1 + 0.25 * 2) / 2)


@pytest.mark.parametrize("family", ["RetinaNet", "FCOS", "SSD", "FasterRCNN"])
def test_loss_depends_neither_on_the_batches_nor_on_chance(family):
    model, batch = make(family).eval(), scenes(4, empty=(2,))
    values = []
    with torch.no_grad():
        for seed, parts in enumerate([[[0, 1, 2, 3]], [[3], [1, 0], [2]]]):
            torch.manual_seed(seed)
            metrics = TASK.metrics(CLASSES, CPU)
            for part in parts:
                metrics.update(TASK.run(model, batch.images[part]), chosen(batch, part), None)
            drawn = torch.rand(())
            torch.manual_seed(seed)
            assert torch.equal(drawn, torch.rand(()))  # whatever was drawn left no trace
            values.append(metrics.compute())
    assert values[0] == pytest.approx(values[1], rel=1e-4)
    if family == "RetinaNet":  # its loss is a mean over the images in any case
        whole = TASK.loss(TASK.run(model, batch.images), batch)
        assert values[0]["loss"] == pytest.approx(whole.item(), rel=1e-5)


def chosen(batch, part):
    objects = [
        tuple(values[n] for n in part) for values in (batch.labels.boxes, batch.labels.labels, batch.labels.ignored)
    ]
    return Batch(batch.images[part], Objects(*objects), batch.indices[part])


def equally_likely():
    """Boxes of one score all, of which some are right: their order decides."""
    right, wrong = [(A, 0.5, 1)], [(FAR, 0.5, 1)]
    return told(*[(found, [(A, 1, False)]) for found in (right, wrong, right, wrong, wrong)])


SHARES = {"real": ([[4], [1, 3]], [[2, 0]]), "ties": ([[4], [1, 3]], [[2, 0]]), "one": ([], [[2, 0], [4, 1, 3]])}


def measure(rank):
    values = {}
    for name, model, batch in cases():
        metrics = TASK.metrics(CLASSES, CPU)
        for part in SHARES[name][rank]:
            metrics.update(TASK.run(model, batch.images[part]), chosen(batch, part), None)
        values[name] = metrics.compute()
    return values


def cases():
    yield "real", make("FasterRCNN").eval(), scenes(5, empty=(1,))
    yield "ties", Told().eval(), equally_likely()
    yield "one", Told().eval(), equally_likely()


def test_two_ranks_with_unequal_shares_or_none_say_what_one_says(tmp_path):
    ranks = on_ranks(measure, tmp_path)
    assert ranks[0] == ranks[1]
    for name, model, batch in cases():
        assert ranks[0][name] == pytest.approx(measured(batch, model, CLASSES), rel=1e-4)
    # Right, wrong, right, wrong, wrong, in the order of the images: precision 1 up to recall 1/5, 2/3 up to 2/5.
    assert ranks[0]["ties"]["map_50"] == pytest.approx(100 * (21 * 1 + 20 * 2 / 3) / 101)
