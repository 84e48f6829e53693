"""The second stage of Faster R-CNN against torchvision's own forward pass."""

import pytest
import torch
from detector_samples import CLASSES, HEIGHT, WIDTH, make, scenes
from torch import nn

from distill.tasks import Detection

TASK = Detection()


@pytest.fixture
def model():
    return make("FasterRCNN").eval()


def seen_of(model, images):
    """Return what torchvision's own forward pass hands on: the proposals, and what the second stage says of them."""
    seen = {}
    handles = [
        model.rpn.register_forward_hook(lambda module, inputs, result: seen.update(regions=result[0])),
        model.roi_heads.box_predictor.register_forward_hook(lambda module, inputs, result: seen.update(said=result)),
    ]
    model(list(images))
    for handle in handles:
        handle.remove()
    return seen["regions"], seen["said"]


def stage_of(model, images):
    return TASK.probe(model, images).head.regions, TASK.outputs(TASK.run(model, images))


def test_proposals_are_the_likeliest_of_torchvisions(model):
    images = scenes(2).images
    regions, outputs = stage_of(model, images)
    expected, _ = seen_of(model, images)
    assert min(map(len, expected)) > 5
    proposed = regions.propose(outputs, 5)
    assert proposed.shape == (2, 5, 4)
    assert not proposed.requires_grad
    for ours, theirs in zip(proposed, expected, strict=True):
        torch.testing.assert_close(ours, theirs[:5].detach())


def test_where_fewer_are_found_the_last_are_empty(model):
    images = scenes(2).images
    regions, outputs = stage_of(model, images)
    expected, _ = seen_of(model, images)
    proposed = regions.propose(outputs, 60)  # the model keeps 40 in evaluation
    for ours, theirs in zip(proposed, expected, strict=True):
        torch.testing.assert_close(ours[: len(theirs)], theirs.detach())
        assert not ours[len(theirs) :].any()
    logits, offsets = regions.describe(outputs, proposed)
    assert bool(logits.isfinite().all() and offsets.isfinite().all())


def test_what_is_said_of_regions_is_what_torchvision_says(model):
    images = scenes(2).images
    regions, outputs = stage_of(model, images)
    (first, second), (logits, offsets) = seen_of(model, images)
    number = min(len(first), len(second))
    ours, boxes = regions.describe(outputs, torch.stack([first[:number], second[:number]]))
    assert regions.num_classes == len(CLASSES)
    for image, begin in enumerate([0, len(first)]):
        torch.testing.assert_close(ours[image], logits[begin : begin + number])
        torch.testing.assert_close(boxes[image].flatten(1), offsets[begin : begin + number])


def test_gradient_reaches_the_levels_and_the_second_stage(model):
    regions, outputs = stage_of(model, scenes(2).images)
    boxes = torch.tensor([[4.0, 4.0, 12.0, 12.0], [10.0, 10.0, 90.0, 60.0]]).expand(2, 2, 4)
    logits, offsets = regions.describe(outputs, boxes)
    parameters = list(model.roi_heads.parameters())
    gradients = torch.autograd.grad(logits.sum() + offsets.square().sum(), [outputs[":level0"], *parameters])
    assert all(bool(gradient.any()) for gradient in gradients)


def test_it_is_no_module_of_anyone_who_keeps_it(model):
    holder = nn.Module()
    holder.regions = TASK.probe(model, torch.zeros(2, 3, HEIGHT, WIDTH)).head.regions
    assert list(holder.parameters()) == []


def test_another_predictor_is_refused(model):
    model.roi_heads.box_predictor = nn.Identity()
    with pytest.raises(ValueError, match=r"must have a layer cls_score, as .*, found Identity"):
        TASK.probe(model, torch.zeros(2, 3, HEIGHT, WIDTH))
