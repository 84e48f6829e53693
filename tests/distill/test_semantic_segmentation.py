"""The task of classifying pixels: its loss, its metrics on one and two ranks, what is read off torchvision's models."""

import math

import pytest
import torch
import torch.nn.functional as F
from on_ranks import on_ranks
from torch import nn
from torchvision.models import detection, segmentation

from distill.batch import Batch
from distill.taps import OUTPUT
from distill.tasks import Classification, SemanticSegmentation

CPU = torch.device("cpu")
CLASSES = ("sky", "road", "car")


def batch(masks):
    masks = torch.as_tensor(masks)
    return Batch(torch.zeros(len(masks), 1, *masks.shape[1:]), masks, torch.arange(len(masks)))


def logits_of(masks, strength=10.0):
    """Logits that answer with these classes."""
    return strength * F.one_hot(torch.as_tensor(masks), 3).movedim(3, 1).float()


def test_the_loss_is_the_mean_over_known_pixels():
    # Two classes, logits (0, log 3): softmax = (1/4, 3/4); a pixel of class 0 costs log 4, one of class 1 log(4/3).
    logits = torch.tensor([0.0, math.log(3)])[None, :, None, None].expand(1, 2, 1, 3)
    found = SemanticSegmentation().loss(logits, batch([[[0, 1, 255]]]))
    assert found.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2, rel=1e-6)


def test_class_weights_weigh_the_mean_as_torch_does():
    logits = torch.randn(2, 3, 4, 5)
    masks = torch.randint(0, 3, (2, 4, 5))
    masks[0, 0, :3] = 255
    weights = [1.0, 0.0, 4.0]
    expected = F.cross_entropy(logits, masks, weight=torch.tensor(weights), ignore_index=255)
    found = SemanticSegmentation(class_weights=weights).loss(logits, batch(masks))
    torch.testing.assert_close(found, expected)


def test_a_batch_without_known_pixels_costs_nothing():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = SemanticSegmentation().loss(logits, batch(torch.full((1, 2, 2), 255)))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_the_auxiliary_head_counts_with_its_weight():
    main, aux = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    masks = torch.randint(0, 3, (2, 4, 4))
    output = {"out": main, "aux": aux}
    expected = F.cross_entropy(main, masks) + 0.4 * F.cross_entropy(aux, masks)
    torch.testing.assert_close(SemanticSegmentation(auxiliary_weight=0.4).loss(output, batch(masks)), expected)


def test_coarse_logits_are_resized_to_the_masks():
    logits, masks = torch.randn(1, 3, 2, 2), torch.randint(0, 3, (1, 4, 6))
    resized = F.interpolate(logits, size=(4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(SemanticSegmentation().loss(logits, batch(masks)), F.cross_entropy(resized, masks))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auxiliary_weight": -1}, "auxiliary_weight must not be negative, found -1"),
        ({"class_weights": [1.0, -1.0]}, r"class_weights must be at least 0, and one above 0, found \[1.0, -1.0\]"),
        ({"class_weights": []}, r"class_weights must be at least 0, and one above 0, found \[\]"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SemanticSegmentation(**options)


def test_an_output_without_logits_is_refused():
    with pytest.raises(ValueError, match="a mapping with logits under 'out', found list"):
        SemanticSegmentation().logits([torch.zeros(1)])


def test_metrics_by_hand():
    # Road is hit once of 1 pixel masked and 2 answered, sky twice of 3 masked and 2 answered; car never occurs.
    masks = [[[0, 0], [0, 1]], [[255, 255], [255, 255]]]
    answers = [[[0, 0], [1, 1]], [[2, 2], [2, 2]]]
    metrics = SemanticSegmentation().metrics(CLASSES, CPU)
    teacher = torch.tensor([[[0, 0], [0, 0]], [[2, 2], [2, 1]]], dtype=torch.uint8)
    metrics.update(logits_of(answers), batch(masks), teacher)
    values = metrics.compute()
    assert values["iou/sky"] == pytest.approx(100 * 2 / 3)
    assert values["iou/road"] == pytest.approx(100 * 1 / 2)
    assert "iou/car" not in values
    assert values["miou"] == pytest.approx((100 * 2 / 3 + 100 / 2) / 2)
    assert values["pixel_accuracy"] == pytest.approx(75)
    assert values["agreement"] == pytest.approx(100 * 5 / 8)
    expected = F.cross_entropy(logits_of(answers)[:1], torch.tensor(masks[:1]))
    assert values["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_class_that_is_only_answered_counts_as_missed():
    metrics = SemanticSegmentation().metrics(CLASSES, CPU)
    metrics.update(logits_of([[[0, 2]]]), batch([[[0, 0]]]), None)
    values = metrics.compute()
    assert values["iou/car"] == 0
    assert values["miou"] == pytest.approx(25)
    assert "agreement" not in values


def share_of_two(rank):
    return scores_of_share(rank, 2)


def scores_of_share(rank, world_size):
    torch.manual_seed(0)
    logits, masks = torch.randn(5, 3, 4, 6), torch.randint(0, 3, (5, 4, 6))
    masks[torch.rand(masks.shape) < 0.2] = 255
    teacher = torch.randint(0, 3, (5, 4, 6), dtype=torch.uint8)
    metrics = SemanticSegmentation().metrics(CLASSES, CPU)
    for number in range(rank, 5, world_size):
        own = slice(number, number + 1)
        metrics.update(logits[own], batch(masks[own]), teacher[own])
    return metrics.compute()


def test_unequal_shares_of_ranks_give_what_one_process_gives(tmp_path):
    expected = scores_of_share(0, 1)
    for found in on_ranks(share_of_two, tmp_path):
        assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "stages", "classifier"),
    [
        ("fcn_resnet50", ["backbone.layer1", "backbone.layer4"], (3, 512, 1, 1)),
        ("deeplabv3_resnet101", ["backbone.layer1", "backbone.layer4"], (3, 256, 1, 1)),
        (
            "deeplabv3_mobilenet_v3_large",
            ["backbone.1", "backbone.3", "backbone.6", "backbone.16"],
            (3, 256, 1, 1),
        ),
        ("lraspp_mobilenet_v3_large", ["backbone.1", "backbone.3", "backbone.6", "backbone.16"], None),
    ],
)
def test_stages_lie_in_the_backbone(name, stages, classifier):
    with torch.device("meta"):
        model = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=3, aux_loss=None)
        found = SemanticSegmentation().probe(model, torch.empty(2, 3, 96, 128))
    assert [stage.name for stage in found.stages] == stages
    assert found.last.name == stages[-1]
    assert found.output_shape == (3, 96, 128)
    assert (None if found.classifier is None else tuple(found.classifier.weight.shape)) == classifier


def test_scores_at_the_trunks_resolution_end_no_stage():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
            self.coarse = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=1))
            self.scores = nn.Conv2d(6, 5, 1)

        def forward(self, images):
            return F.interpolate(self.scores(self.coarse(self.fine(images))), size=images.shape[2:])

    model = Dense()
    found = SemanticSegmentation().probe(model, torch.zeros(2, 3, 16, 16))
    assert [stage.name for stage in found.stages] == ["fine", "coarse"]
    assert found.classifier is model.scores


def test_models_that_do_not_fit_are_named():
    plain = SemanticSegmentation()
    found = plain.probe(nn.Conv2d(3, 4, 1), torch.zeros(2, 3, 8, 8))
    assert plain.misfit(found, 3) == "gives [4, 8, 8] logits an image, but the data have 3 classes"
    assert plain.misfit(found, 4) == ""
    vector = plain.probe(nn.Sequential(nn.Flatten(), nn.Linear(3, 4)), torch.zeros(2, 3, 1, 1))
    assert plain.misfit(vector, 4) == "gives [4] an image, where logits [class, height, width] are needed"


def test_class_weights_are_one_a_class():
    task = SemanticSegmentation(class_weights=[1.0, 2.0])
    task.check_classes(2)
    with pytest.raises(ValueError, match="class_weights must be one for each of the 3 classes, found 2"):
        task.check_classes(3)


@pytest.mark.parametrize("task", [SemanticSegmentation(), Classification()])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_detector_is_named_as_one(task, device):
    with torch.device(device):
        model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=4)
        images = torch.zeros(2, 3, 64, 64)
    with pytest.raises(ValueError, match=f"must give logits for {type(task).__name__}, found SSD, a detector, which"):
        task.probe(model, images)


def test_answers_are_the_likeliest_classes():
    masks = torch.randint(0, 3, (2, 4, 4))
    answer = SemanticSegmentation().answer({OUTPUT: logits_of(masks)})
    assert answer.dtype == torch.uint8
    assert torch.equal(answer.long(), masks)


def test_a_model_of_coarse_logits_agrees_with_itself():
    """Enlarged logits turn to other classes within a place, for the loss and the masks; both are asked alike."""
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 3, 4)
    task = SemanticSegmentation()
    metrics = task.metrics(CLASSES, CPU)
    metrics.update({"out": logits}, batch(torch.randint(0, 3, (2, 12, 16))), task.answer({OUTPUT: logits}))
    assert metrics.compute()["agreement"] == 100.0
