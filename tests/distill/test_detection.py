"""Every family of detectors against torchvision's own forward pass."""

import copy

import pytest
import torch
from detector_samples import CLASSES, HEIGHT, MAKERS, PLACES, WIDTH, make, scenes
from torch import nn
from torchvision.models import detection

from distill.batch import Batch
from distill.tasks import Detection
from distill.tasks.detectors import OwnDetector, family_of

TASK = Detection()
ANCHORS = {"RetinaNet": 3, "FCOS": 1, "DistributionFCOS": 1, "SSD": 4, "FasterRCNN": 3}
every_family = pytest.mark.parametrize("family", MAKERS)


def own_losses(model, batch):
    """What torchvision's training forward says, summed; its targets are copied, as it changes them."""
    targets = [{name: value.clone() for name, value in target.items()} for target in batch.labels.trained()]
    return sum(model(list(batch.images), targets).values())


@every_family
@pytest.mark.parametrize("empty", [(), (1,), (0, 1, 2)])
def test_loss_and_gradients_are_those_of_torchvisions_training_forward(family, empty):
    model, batch = make(family).train(), scenes(empty=empty)
    twin = copy.deepcopy(model)
    twin.transform.eval()  # it draws a number in training mode, although there is nothing to choose
    torch.manual_seed(7)
    expected = own_losses(twin, batch)
    expected.backward()
    torch.manual_seed(7)
    loss = TASK.loss(TASK.run(model, batch.images), batch)
    loss.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6, check_dtype=True)
    for (name, parameter), other in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert parameter.grad is not None, name
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6)
    for buffer, other in zip(model.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(buffer, other)


@every_family
def test_ignored_objects_are_not_trained_on(family):
    model, batch = make(family).eval(), scenes()
    assert batch.labels.ignored[0][0]
    moved = copy.deepcopy(batch)
    moved.labels.boxes[0][0] = torch.tensor([0.0, 0.0, 60.0, 60.0])
    losses = []
    for each in (batch, moved):
        torch.manual_seed(0)
        losses.append(TASK.loss(TASK.run(model, each.images), each))
    assert torch.equal(*losses)


@every_family
def test_detections_are_those_of_torchvisions_evaluation_forward(family):
    model, batch = make(family).eval(), scenes()
    with torch.no_grad():
        expected = model(list(batch.images))
        found = TASK.detections(TASK.run(model, batch.images))
    assert sum(len(each["scores"]) for each in expected) > 3
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("boxes", "scores", "labels"):
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=1e-4)


@every_family
def test_outputs_have_their_names_and_shapes(family):
    model, images = make(family), scenes(2).images
    outputs = TASK.outputs(TASK.run(model, images))
    locations = ANCHORS[family] * sum(height * width for height, width in PLACES)
    channels = 8 if family == "SSD" else 32
    levels = {f":level{number}": (2, channels, *place) for number, place in enumerate(PLACES)}
    classes = 1 if family == "FasterRCNN" else len(CLASSES)
    centerness = {":centerness": (2, 1, locations)} if "FCOS" in family else {}
    distribution = {":box_distribution": (2, 4 * 6, locations)} if family == "DistributionFCOS" else {}
    assert {name: tuple(part.shape) for name, part in outputs.items()} == {
        "": (2, classes, locations),
        ":boxes": (2, 4, locations),
        **centerness,
        **distribution,
        **levels,
    }


@every_family
def test_gradients_of_the_loss_can_be_taken_at_every_part(family):
    model, batch = make(family), scenes()
    output = TASK.run(model, batch.images)
    parts = TASK.outputs(output)
    gradients = torch.autograd.grad(TASK.loss(output, batch), list(parts.values()))
    assert all(bool(gradient.isfinite().all()) and bool(gradient.any()) for gradient in gradients)


@every_family
def test_probe_on_the_meta_device(family):
    with torch.device("meta"):
        model = make(family)
    found = TASK.probe(model, torch.empty(2, 3, HEIGHT, WIDTH, device="meta"))
    assert found.is_pyramid
    assert [tap.name for tap in found.stages] == [":level0", ":level1", ":level2"]
    assert [tap.stride for tap in found.stages] == [4, 8, 16]
    assert found.last.name == ":level2"
    assert found.head.independent == (family != "SSD")
    assert (found.head.regions is not None) == (family == "FasterRCNN")
    assert TASK.misfit(found, len(CLASSES)) == ""
    assert "4 classes apart, background included, but the data have 7" in TASK.misfit(found, 7)


@every_family
def test_a_location_lies_where_its_anchor_lies(family):
    """The logits of the finest level are those of the head's convolution at that place, anchor by anchor."""
    model, images = make(family).eval(), scenes(1).images
    output = TASK.run(model, images)
    seen = {}
    name = {
        "SSD": "head.classification_head.module_list.0",
        "FasterRCNN": "rpn.head.cls_logits",
        "DistributionFCOS": "head.fcos.classification_head.cls_logits",
    }.get(family, "head.classification_head.cls_logits")
    handle = model.get_submodule(name).register_forward_hook(
        lambda module, inputs, result: seen.setdefault("map", result)  # the finest level comes first
    )
    TASK.run(model, images)
    handle.remove()
    classes, anchors = output.parts[""].shape[1], ANCHORS[family]
    row, column, anchor = 5, 9, anchors - 1
    place = (row * PLACES[0][1] + column) * anchors + anchor
    expected = seen["map"][0, anchor * classes : (anchor + 1) * classes, row, column]
    torch.testing.assert_close(output.parts[""][0, :, place], expected)


@every_family
def test_autocast_gives_float32_losses_and_anchors(family):
    model, batch = make(family), scenes()
    with torch.autocast("cpu", torch.bfloat16):
        output = TASK.run(model, batch.images)
    torch.manual_seed(1)
    loss = TASK.loss(output, batch)
    torch.manual_seed(1)
    exact = TASK.loss(TASK.run(make(family), batch.images), batch)
    assert output.parts[""].dtype is torch.bfloat16
    assert loss.dtype is torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.1)
    loss.backward()
    generator = model.rpn.anchor_generator if family == "FasterRCNN" else model.anchor_generator
    assert output.anchors(generator)[0].dtype is torch.float32


@every_family
def test_channels_last_says_the_same(family):
    model, batch = make(family).eval(), scenes()
    expected = TASK.outputs(TASK.run(model, batch.images))
    model.to(memory_format=torch.channels_last)
    output = TASK.run(model, batch.images.to(memory_format=torch.channels_last))
    for name, part in TASK.outputs(output).items():
        torch.testing.assert_close(part, expected[name], rtol=1e-4, atol=1e-5)
    TASK.loss(output, batch).backward()


def test_one_anchor_grid_serves_all_images():
    model, images = make("RetinaNet"), scenes(2).images
    output = TASK.run(model, images)
    first, second = output.anchors(model.anchor_generator)
    assert first is second
    # Place (row 1, column 2) of stride 4, ratio 1, side 8: centre (8, 4).
    assert first[(1 * 24 + 2) * 3 + 1].tolist() == [4.0, 0.0, 12.0, 8.0]


def test_other_models_are_refused_in_one_line():
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(
        ValueError, match=r"RetinaNet, FCOS, SSD, SSDLite or FasterRCNN .*OwnDetector, found Sequential"
    ):
        TASK.run(nn.Sequential(), images)
    with torch.device("meta"):
        model = detection.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    with pytest.raises(ValueError, match="masks and keypoints are not learned here, which MaskRCNN finds"):
        TASK.run(model, images)


def test_batches_of_classes_are_refused():
    batch = Batch(torch.zeros(2, 3, HEIGHT, WIDTH), torch.zeros(2).long(), torch.arange(2))
    with pytest.raises(ValueError, match="labelled with classes here, where objects are needed"):
        TASK.loss(TASK.run(make("RetinaNet"), batch.images), batch)


def test_ssdlite_is_an_ssd():
    with torch.device("meta"):
        model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
    found = TASK.probe(model, torch.empty(2, 3, 320, 320, device="meta"))
    assert len(found.stages) == 6
    assert found.output_shapes[""] == (4, 3234)
    assert not found.head.independent


class Whole(OwnDetector):
    """Says of the whole image what is in it."""

    independent = False

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 5, 8, 8)
        self.classes = nn.Conv2d(5, 4, 1)

    def forward(self, images):
        maps = self.backbone(images)
        return {"": self.classes(maps).mean(dim=(2, 3))[:, :, None], ":level0": maps}

    def losses(self, parts, targets):
        labels = torch.stack([target["labels"].max() for target in targets])
        return {"classes": nn.functional.cross_entropy(parts[""][:, :, 0], labels)}

    def detections(self, parts):
        scores, labels = parts[""][:, 1:, 0].softmax(1).max(1)
        box = torch.tensor([[0.0, 0.0, WIDTH, HEIGHT]])
        return [{"boxes": box, "scores": scores[[n]], "labels": labels[[n]] + 1} for n in range(len(scores))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.pop(), r"Wrong.detections must return a mapping for each of 3 images, found 2"),
        (
            lambda found: found[1].pop("scores"),
            r"must return boxes \[object, 4\], scores and labels .*{'boxes': \[1, 4\], 'l",
        ),
        (lambda found: found[0].update(labels=torch.ones(2)), r"found .*'scores': \[1\], 'labels': \[2\]"),
        (lambda found: found[0].update(boxes=torch.zeros(4)), r"found {'boxes': \[4\]"),
    ],
)
def test_what_a_detector_of_ones_own_finds_is_looked_at(change, message):
    class Wrong(Whole):
        def detections(self, parts):
            found = super().detections(parts)
            change(found)
            return found

    model = Wrong()
    output = TASK.run(model, scenes().images)
    with pytest.raises(ValueError, match=message):
        family_of(model).detections(output)


def test_a_detector_of_ones_own():
    torch.manual_seed(0)
    model, batch = Whole(), scenes()
    found = TASK.probe(model, batch.images)
    assert found.output_shape == (4, 1)
    assert [tap.name for tap in found.stages] == [":level0"]
    assert not found.head.independent
    output = TASK.run(model, batch.images)
    logits = model(batch.images)[""][:, :, 0]
    assert TASK.loss(output, batch).item() == pytest.approx(
        nn.functional.cross_entropy(logits, torch.tensor([3, 3, 3])).item()
    )
    metrics = TASK.metrics(CLASSES, torch.device("cpu"))
    metrics.update(output, batch, None)
    assert metrics.compute()["loss"] == pytest.approx(TASK.loss(output, batch).item(), rel=1e-5)
    assert type(family_of(model)).__name__ == "OwnFamily"
