"""Anchors lie where the places of the maps lie, in images of any size."""

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from distill.batch import Batch
from distill.models import FCOS, FasterRCNN, ResNet8, RetinaNet
from distill.objects import Objects
from distill.tasks import Detection
from distill.tasks.detectors import DetectorOutput
from distill.tasks.detectors.anchor_step import anchor_step

TASK = Detection()
STRIDES = (4, 8, 16, 32)


@pytest.mark.parametrize(
    ("side", "places", "step"),
    [
        (500, 63, 8),  # 500 // 63 is 7
        (500, 32, 16),
        (500, 16, 32),
        (300, 38, 8),
        (127, 3, 32),  # a pooling that leaves the rest out; 127 // 3 is 42
        (100, 13, 8),
        (100, 4, 32),
        (320, 40, 8),
        (320, 3, 106),  # of stride 128: as torchvision
        (800, 13, 61),  # of stride 64: as torchvision
        (780, 13, 61),  # padded to 800
        (100, 1, 100),
        (33, 2, 16),
        (21, 7, 3),  # of a stride of 3
    ],
)
def test_steps_by_hand(side: int, places: int, step: int) -> None:
    assert anchor_step(side, places) == step


@pytest.mark.parametrize("size", [(320, 480), (64, 800), (96, 32)])
def test_anchors_of_padded_sizes_are_torchvisions(size: tuple[int, int]) -> None:
    generator = AnchorGenerator(((8, 16),) * 5, ((0.5, 1.0),) * 5)
    places = [tuple(-(-side // stride) for side in size) for stride in (8, 16, 32, 64, 128)]
    levels = {f":level{number}": torch.zeros(2, 1, *each) for number, each in enumerate(places)}
    found = DetectorOutput(generator, size, levels).anchors(generator)
    expected = generator(ImageList(torch.zeros(2, 1, *size), [size] * 2), list(levels.values()))
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", [FCOS, RetinaNet, FasterRCNN])
def test_anchors_of_other_sizes_reach_the_border(kind: type) -> None:
    model = kind(ResNet8(num_classes=2, width=4), num_classes=2, width=32, strides=STRIDES)
    output = TASK.run(model, torch.zeros(1, 3, 100, 108))
    generator = model.rpn.anchor_generator if kind is FasterRCNN else model.anchor_generator
    anchors = output.anchors(generator)[0]
    per_place = generator.num_anchors_per_location()
    numbers = [level.shape[2] * level.shape[3] * each for level, each in zip(output.levels, per_place, strict=True)]
    for stride, level in zip(STRIDES, anchors.split(numbers), strict=True):
        centres = (level[:, :2] + level[:, 2:]) / 2
        assert centres.amax(dim=0).tolist() == [107 // stride * stride, 99 // stride * stride]


def test_fcos_learns_an_object_at_the_border_where_it_is() -> None:
    torch.manual_seed(0)
    model = FCOS(ResNet8(num_classes=2, width=4), num_classes=2, width=32, strides=STRIDES)
    box = torch.tensor([[82.0, 30.0, 125.0, 70.0]])  # no side is 32 pixels from its centre: of the finest level
    batch = Batch(
        torch.zeros(1, 3, 125, 125),
        Objects.of([(box, torch.ones(1).long(), torch.zeros(1).bool())]),
        torch.zeros(1).long(),
    )
    output = TASK.run(model, batch.images)
    slope = torch.autograd.grad(TASK.loss(output, batch), [output.parts[":centerness"]])[0][0, 0]  # [location]
    trained = slope[: 32 * 32].view(32, 32).nonzero()
    # Nearer than 6 to the centre (103.5, 50): 100, 104 and 108 across, 48 and 52 down.
    assert trained.tolist() == [[row, column] for row in (12, 13) for column in (25, 26, 27)]
