import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

from distill.build import build
from distill.models import FCOS, SSD, CifarResNet18, FasterRCNN, ResNet8, RetinaNet, SSDLite
from distill.slots import MODEL

SMALL = {
    RetinaNet: {"width": 16, "strides": (2, 4, 8, 16), "depth": 1, "anchor_scale": 2.0, "anchors_per_octave": 1},
    FCOS: {"width": 32, "strides": (2, 4, 8, 16), "depth": 1},
    FasterRCNN: {
        "width": 16,
        "strides": (2, 4, 8, 16),
        "anchor_scale": 4.0,
        "head_width": 24,
        "roi_size": 3,
        "roi_scale": 64,
    },
    SSD: {"width": 16, "strides": (4, 8, 16, 32)},
    SSDLite: {"width": 16, "strides": (4, 8, 16, 32)},
}
CLASSES = {
    RetinaNet: detection.RetinaNet,
    FCOS: detection.FCOS,
    FasterRCNN: detection.FasterRCNN,
    SSD: detection.ssd.SSD,
    SSDLite: detection.ssd.SSD,
}
ALL = pytest.mark.parametrize("factory", SMALL)
SIDE = 32
BOXES = torch.tensor([[4.0, 4.0, 9.0, 9.0], [6.0, 6.0, 18.0, 18.0], [0.0, 0.0, 18.0, 18.0], [0.0, 1.0, 32.0, 30.0]])
"""One for each level's default boxes."""


def small(factory, backbone: nn.Module | None = None, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model = factory(backbone or ResNet8(num_classes=2, width=4), num_classes=3, **SMALL[factory] | options)
    model.transform.min_size, model.transform.max_size = (SIDE,), SIDE
    model.transform.fixed_size = (SIDE, SIDE)
    return model


@ALL
def test_torchvisions_class_learns_in_every_parameter(factory):
    model = small(factory).train()
    assert type(model) is CLASSES[factory]
    targets = [{"boxes": BOXES, "labels": torch.tensor([1, 2, 1, 2])} for _ in range(2)]
    losses = model(list(torch.rand(2, 3, SIDE, SIDE)), targets)
    sum(losses.values()).backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert silent == []


@ALL
def test_it_detects(factory):
    threshold = "box_score_thresh" if factory is FasterRCNN else "score_thresh"
    most = "box_detections_per_img" if factory is FasterRCNN else "detections_per_img"
    model = small(factory, **{threshold: 0.0, most: 7}).eval()
    with torch.no_grad():
        found = model(list(torch.rand(2, 3, SIDE, SIDE)))
    assert [sorted(each) for each in found] == [["boxes", "labels", "scores"]] * 2
    assert all(0 < len(each["boxes"]) <= 7 for each in found)


@ALL
def test_levels_have_the_strides_that_were_asked_for(factory):
    model = small(factory)
    levels = model.backbone(torch.rand(2, 3, SIDE, 2 * SIDE))
    assert list(levels) == ["0", "1", "2", "3"]
    sides = [SIDE // stride for stride in SMALL[factory]["strides"]]
    assert [tuple(level.shape[2:]) for level in levels.values()] == [(side, 2 * side) for side in sides]


def anchors(model: nn.Module) -> torch.Tensor:
    images = torch.rand(1, 3, SIDE, SIDE)
    generator = model.rpn.anchor_generator if hasattr(model, "rpn") else model.anchor_generator
    with torch.no_grad():
        levels = list(model.eval().backbone(images).values())
    return generator(ImageList(images, [(SIDE, SIDE)]), levels)[0]


@ALL
def test_anchors_are_the_same_for_any_backbone(factory):
    first, second = anchors(small(factory)), anchors(small(factory, CifarResNet18(num_classes=2)))
    assert torch.equal(first, second)


def test_anchor_sides_by_hand():
    model = small(RetinaNet, anchor_scale=4.0, anchors_per_octave=2, aspect_ratios=(1.0,), strides=(4, 8))
    assert model.anchor_generator.sizes == ((16.0, 4 * 4 * 2**0.5), (32.0, 4 * 8 * 2**0.5))
    # 8x8 places of two anchors, then 4x4: the first is centred on the corner, torchvision's convention
    assert torch.equal(anchors(model)[0], torch.tensor([-8.0, -8.0, 8.0, 8.0]))
    assert len(anchors(model)) == 2 * (64 + 16)


def shapes(*parts: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for part in parts for value in part.state_dict().values()]


def test_with_torchvisions_sizes_pyramid_and_heads_are_torchvisions():
    with torch.device("meta"):
        theirs = detection.retinanet_resnet50_fpn(weights_backbone=None, num_classes=5)
        ours = RetinaNet(torchvision.models.resnet50(), num_classes=5, width=256)
        assert shapes(ours.head) == shapes(theirs.head)
        assert shapes(ours.backbone.fpn) == shapes(theirs.backbone.fpn.inner_blocks, theirs.backbone.fpn.layer_blocks)
        theirs = detection.fcos_resnet50_fpn(weights_backbone=None, num_classes=5)
        ours = FCOS(torchvision.models.resnet50(), num_classes=5, width=256)
        assert shapes(ours.head) == shapes(theirs.head)
        theirs = detection.fasterrcnn_resnet50_fpn(weights_backbone=None, num_classes=5)
        ours = FasterRCNN(torchvision.models.resnet50(), num_classes=5, width=256, head_width=1024)
        assert shapes(ours.rpn, ours.roi_heads) == shapes(theirs.rpn, theirs.roi_heads)


def test_grouped_heads_are_those_of_torchvisions_second_retinanet():
    with torch.device("meta"):
        theirs = detection.retinanet_resnet50_fpn_v2(weights_backbone=None, num_classes=5)
        ours = RetinaNet(torchvision.models.resnet50(), num_classes=5, width=256, groups=32)
        assert shapes(ours.head) == shapes(theirs.head)


def test_an_ssdlite_has_the_channels_of_its_levels():
    with torch.device("meta"):
        model = SSDLite(torchvision.models.mobilenet_v2(), num_classes=5, width=48)
        assert model.backbone.out_channels == [96, 1280, 48, 48]
        assert [level.shape[1:] for level in model.backbone(torch.empty(2, 3, 128, 128)).values()] == [
            (96, 8, 8),
            (1280, 4, 4),
            (48, 2, 2),
            (48, 1, 1),
        ]
        assert model.head.classification_head.module_list[0][1].weight.shape == (6 * 5, 96, 1, 1)


@ALL
def test_it_is_built_from_a_file_for_grey_images(factory):
    spec = {"use": factory.__name__, **SMALL[factory], "backbone": {"use": "ResNet8", "width": 4}}
    spec["strides"] = list(SMALL[factory]["strides"])
    model = build(spec, MODEL, num_classes=3, in_channels=1)
    assert len(model.backbone(torch.rand(2, 1, SIDE, SIDE))) == 4
    with torch.device("meta"):
        assert all(value.is_meta for value in build(spec, MODEL, num_classes=3, in_channels=1).parameters())


@ALL
@pytest.mark.parametrize(
    ("strides", "message"),
    [
        ((2, 4, 16), r"strides must be at least 1 and double from level to level, found \[2, 4, 16\]"),
        ((), r"strides must be at least 1 and double from level to level, found \[\]"),
        ((8, 16), r"strides must begin with one of the backbone's, 1, 2, 4, and leave out none, found \[8, 16\]"),
    ],
)
def test_strides_are_checked(factory, strides, message):
    with pytest.raises(ValueError, match=message):
        small(factory, strides=strides)


@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        (RetinaNet, {"depth": 5}, "depth must be at most 4, found 5"),
        (RetinaNet, {"depth": 0}, "depth must be a whole number of at least 1, found 0"),
        (RetinaNet, {"groups": 3}, "groups must be 0 or divide width 16, found 3"),
        (RetinaNet, {"anchor_scale": 0.0}, r"anchor_scale must be above 0, found 0.0"),
        (RetinaNet, {"anchors_per_octave": 0}, "anchors_per_octave must be at least 1, found 0"),
        (FasterRCNN, {"aspect_ratios": (1.0, -1.0)}, r"aspect_ratios must be above 0, found \[1.0, -1.0\]"),
        (FasterRCNN, {"head_width": 0}, "head_width must be a whole number of at least 1, found 0"),
        (FCOS, {"width": 48}, "width must be a multiple of 32, the groups of the head's GroupNorm, found 48"),
        (SSD, {"min_ratio": 0.9}, r"min_ratio must be above 0 and below max_ratio 0.9, at most 1, found 0.9"),
        (SSDLite, {"aspect_ratios": (0.0,)}, r"aspect_ratios must be above 0, found \[0.0\]"),
    ],
)
def test_options_are_checked(factory, options, message):
    with pytest.raises(ValueError, match=message):
        small(factory, **options)


@pytest.mark.parametrize("factory", [RetinaNet, FCOS])
def test_depth_counts_the_convolutions_of_each_head(factory):
    for depth in (1, 3):
        head = small(factory, depth=depth, width=32).head
        for part in (head.classification_head, head.regression_head):
            assert sum(isinstance(layer, nn.Conv2d) for layer in part.conv.modules()) == depth


@pytest.mark.parametrize("side", [20, 40, 66])
def test_regions_are_looked_at_where_they_are_whatever_the_canvas(side):
    """Of a level with few positions torchvision guesses another scale than its stride."""
    strides = (4, 8, 16, 32)
    pooling = small(FasterRCNN, strides=strides).roi_heads.box_roi_pool
    maps = {
        str(level): torch.rand(1, 2, -(-side // stride), -(-side // stride)) for level, stride in enumerate(strides)
    }
    widths = torch.tensor([4.0, 40.0, 80.0, 200.0])  # at a roi_scale of 64: one for each level
    regions = torch.stack([torch.zeros(4), torch.zeros(4), widths, widths], dim=1)
    seen = pooling(maps, [regions], [(side, side)])
    for level, stride in enumerate(strides):
        expected = torchvision.ops.roi_align(maps[str(level)], [regions[level : level + 1]], 3, 1 / stride, 2)
        torch.testing.assert_close(seen[level : level + 1], expected)
