import math

import pytest
import torch
from torch import nn
from torchvision.models import detection

from distill.build import build
from distill.models import FCOS, DistributionFCOS, ResNet8
from distill.models.distribution_head import DistributionHead
from distill.slots import MODEL

SIDE = 32
TARGETS = [
    {"boxes": torch.tensor([[2.0, 3.0, 12.0, 11.0], [1.0, 1.0, 31.0, 30.0]]), "labels": torch.tensor([1, 2])},
    {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)},
]


def small(**options):
    torch.manual_seed(0)
    backbone = ResNet8(num_classes=2, width=4)
    return DistributionFCOS(backbone, num_classes=3, width=32, strides=(4, 8), depth=1, **options)


def head(num_bins):
    torch.manual_seed(0)
    return DistributionHead(detection.fcos.FCOSHead(32, 1, 3, num_convs=1), num_bins)


def levels(*sizes):
    return [torch.rand(2, 32, *size) for size in sizes]


def test_it_is_torchvisions_fcos_with_another_layer_for_boxes():
    model = small(num_bins=6)
    assert type(model) is detection.FCOS
    torch.manual_seed(0)
    plain = FCOS(ResNet8(num_classes=2, width=4), num_classes=3, width=32, strides=(4, 8), depth=1)
    counts = [sum(value.numel() for value in each.parameters()) for each in (model, plain)]
    assert counts[0] - counts[1] == (4 * 6 - 4) * (9 * 32 + 1)


def test_a_box_has_the_mean_distance_of_each_side():
    # Bias alone: of three bins left (ln 3, 0, -inf): mean 1/4; top all in the last: 2; right even: 1; bottom in the
    # first: 0.
    found = head(3)
    layer = found.fcos.regression_head.bbox_reg
    nn.init.zeros_(layer.weight)
    layer.bias.data = torch.tensor([math.log(3), 0, -1e4, -1e4, -1e4, 1e4, 0, 0, 0, 1e4, 0, 0])
    said = found(levels((2, 3), (1, 2)))
    assert said["box_distribution"].shape == (2, 8, 12)
    torch.testing.assert_close(said["box_distribution"][1, 5], layer.bias)
    wanted = torch.tensor([0.25, 2.0, 1.0, 0.0]).expand(2, 8, 4)
    torch.testing.assert_close(said["bbox_regression"], wanted)


def test_locations_follow_row_by_row_and_level_by_level():
    found, maps = head(4), levels((2, 3), (1, 2))
    branch, said = found.fcos.regression_head, found(maps)
    for name, layer in (("box_distribution", branch.bbox_reg), ("bbox_ctrness", branch.bbox_ctrness)):
        for location, (level, row, column) in ((4, (0, 1, 1)), (6, (1, 0, 0)), (7, (1, 0, 1))):
            place = layer(branch.conv(maps[level]))[:, :, row, column]
            torch.testing.assert_close(said[name][:, location], place)
    torch.testing.assert_close(said["cls_logits"], found.fcos.classification_head(maps))


def test_distribution_focal_loss():
    # Anchors of side 4 around (10, 10); the object lies 5, 8, 12 and 20 away: 1.25, 2, 3 and 5 anchor sides, of which 5
    # counts as 3, the last of four bins.  Logits of left 0, 1, 2, 0; those of the other sides are all alike.
    anchors = torch.tensor([[8.0, 8.0, 12.0, 12.0], [8.0, 8.0, 12.0, 12.0]])
    targets = [{"boxes": torch.tensor([[5.0, 2.0, 22.0, 30.0]]), "labels": torch.tensor([1])}]
    said = {
        "cls_logits": torch.zeros(1, 2, 3),
        "bbox_regression": torch.ones(1, 2, 4),
        "bbox_ctrness": torch.zeros(1, 2, 1),
        "box_distribution": torch.tensor([0.0, 1, 2, 0] + [7.0] * 4 + [0.0] * 8).expand(1, 2, 16),
    }
    losses = head(4).compute_loss(targets, said, [anchors], [torch.tensor([-1, 0])])
    total = math.log(2 + math.e + math.e**2)  # of the left side's shares
    left = 0.75 * (total - 1) + 0.25 * (total - 2)
    assert losses["bbox_distribution"].item() == pytest.approx(0.25 * (left + 3 * math.log(4)) / 4)
    plain = detection.fcos.FCOSHead(32, 1, 3).compute_loss(targets, said, [anchors], [torch.tensor([-1, 0])])
    assert {name: losses[name].item() for name in plain} == {name: value.item() for name, value in plain.items()}
    nothing = head(4).compute_loss(targets, said, [anchors], [torch.tensor([-1, -1])])
    assert nothing["bbox_distribution"] == 0


def test_the_loss_is_least_where_the_mean_is_the_distance():
    """Between two bins, the best distribution has the target as its mean."""
    found = head(4)
    logits = torch.zeros(1, 16, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100)

    def closure():
        optimizer.zero_grad()
        loss = found._focal(logits, torch.tensor([[0.3, 1.6, 2.9, 2.0]])).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    mean = found.distances(logits.detach()[:, :, None])[0, :, 0]
    torch.testing.assert_close(mean, torch.tensor([0.3, 1.6, 2.9, 2.0]), atol=2e-2, rtol=0)


def test_it_trains_and_detects_as_torchvision_runs_it():
    model = small(num_bins=6, score_thresh=0.0, detections_per_img=7)
    model.transform.min_size, model.transform.max_size = (SIDE,), SIDE
    losses = model.train()(list(torch.rand(2, 3, SIDE, SIDE)), TARGETS)
    assert set(losses) == {"classification", "bbox_regression", "bbox_ctrness", "bbox_distribution"}
    sum(losses.values()).backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert silent == []
    with torch.no_grad():
        found = model.eval()(list(torch.rand(2, 3, SIDE, SIDE)))
    assert [len(each["boxes"]) for each in found] == [7, 7]


@pytest.mark.parametrize("num_bins", [1, 0])
def test_a_distribution_has_two_bins(num_bins):
    with pytest.raises(ValueError, match=f"^num_bins must be at least 2, found {num_bins}$"):
        small(num_bins=num_bins)


def test_a_file_can_name_it():
    spec = {"use": "DistributionFCOS", "backbone": {"use": "ResNet8"}, "width": 32, "strides": [4, 8]}
    with torch.device("meta"):
        model = build(spec, MODEL, num_classes=3, in_channels=1)
    assert type(model.head) is DistributionHead
    assert model.head.num_bins == 17
