import pytest
import torch
from torch import nn
from torchvision.models import detection, resnet18, segmentation, squeezenet1_1

from distill.fit_state import fit_state
from distill.models import ResNet8


def resnet8(num_classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ResNet8(num_classes=num_classes)


def same(model: nn.Module, state) -> set[str]:
    """Names of the tensors that the model took over."""
    return {name for name, value in model.state_dict().items() if torch.equal(value, state[name])}


def test_everything_fits():
    model, state = resnet8(10, seed=0), resnet8(10, seed=1).state_dict()
    assert fit_state(model, state, source="checkpoint x.pt", num_classes=10) == [
        f"checkpoint x.pt: {len(state)} tensors loaded"
    ]
    assert same(model, state) == set(state)


def test_head_of_other_classes_stays_fresh_and_says_so():
    model, state = resnet8(10, seed=0), resnet8(1000, seed=1).state_dict()
    fresh = {name: model.fc.get_parameter(name).clone() for name in ("weight", "bias")}
    messages = fit_state(model, state, source="checkpoint x.pt", num_classes=10)
    assert messages == [
        f"checkpoint x.pt: {len(state) - 2} tensors loaded",
        "checkpoint x.pt: head fc has 1000 classes, the data 10: replaced by a fresh one, which is still to be trained",
    ]
    assert all(torch.equal(model.fc.get_parameter(name), value) for name, value in fresh.items())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items() if name[:3] != "fc.")


def test_convolutional_head():
    model, state = squeezenet1_1(num_classes=4), squeezenet1_1(num_classes=6).state_dict()
    messages = fit_state(model, state, source="s", num_classes=4)
    assert messages[1:] == [
        "s: head classifier.1 has 6 classes, the data 4: replaced by a fresh one, which is still to be trained"
    ]
    assert torch.equal(model.features[0].weight, state["features.0.weight"])


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."]
)
def test_prefixes_of_wrappers(prefix):
    model, state = resnet8(10, seed=0), resnet8(10, seed=1).state_dict()
    fit_state(model, {prefix + name: value for name, value in state.items()}, source="s", num_classes=10)
    assert same(model, state) == set(state)


def test_compiled_stages():
    model, state = resnet8(10, seed=0), resnet8(10, seed=1).state_dict()
    renamed = {name.replace("layer1.", "layer1._orig_mod."): value for name, value in state.items()}
    assert renamed.keys() != state.keys()
    fit_state(model, renamed, source="s", num_classes=10)
    assert same(model, state) == set(state)


def test_a_model_may_have_a_part_called_module():
    model, state = (
        nn.ModuleDict({"module": nn.Linear(2, 3)}),
        {"module.weight": torch.ones(3, 2), "module.bias": torch.ones(3)},
    )
    fit_state(model, state, source="s", num_classes=3)
    assert same(model, state) == set(state)


def test_old_files_without_batch_counters():
    model, state = resnet8(10, seed=0), resnet8(10, seed=1).state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    fit_state(model, old, source="s", num_classes=10)
    assert torch.equal(model.layer3[0].bn2.weight, state["layer3.0.bn2.weight"])


def test_half_precision_is_converted():
    model, state = resnet8(10, seed=0), resnet8(10, seed=1).half().state_dict()
    fit_state(model, state, source="s", num_classes=10)
    assert model.fc.weight.dtype == torch.float32
    assert torch.equal(model.fc.weight, state["fc.weight"].float())


def refused(model, state, match):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        fit_state(model, state, source="checkpoint x.pt", num_classes=10)
    assert same(model, before) == set(before), "a refused state must leave no trace"


def test_names_are_listed_by_five_and_counted():
    model, state = resnet8(10, seed=0), dict(resnet8(10, seed=1).state_dict())
    for name in [name for name in state if name.startswith("layer1.0.")][:7]:
        state[f"extra.{name}"] = state.pop(name)
    refused(
        model,
        state,
        r"checkpoint x\.pt does not fit the model: "
        r"6 missing: layer1\.0\.conv1\.weight, (layer1\.0\.[a-z0-9_.]+, ){3}layer1\.0\.[a-z0-9_.]+ and 1 more; "
        r"7 unexpected: extra\.layer1\.0\.conv1\.weight, .* and 2 more$",
    )


def test_another_width_is_refused_and_is_no_head():
    refused(
        resnet8(10, seed=0),
        ResNet8(num_classes=10, width=8).state_dict(),
        r"of another shape: stem\.0\.weight \[8, 3, 3, 3\] instead of \[16, 3, 3, 3\], .* and \d+ more",
    )


def test_a_hidden_layer_is_no_head():
    refused(
        nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 10)),
        nn.Sequential(nn.Linear(4, 7), nn.ReLU(), nn.Linear(7, 10)).state_dict(),
        r"3 of another shape: 0\.weight \[7, 4\] instead of \[10, 4\]",
    )


def test_two_layers_of_other_sizes_are_no_head():
    class Branches(nn.Module):
        def __init__(self, left, right):
            super().__init__()
            self.left, self.right = nn.Linear(4, left), nn.Linear(4, right)

    refused(Branches(10, 10), Branches(5, 6).state_dict(), "4 of another shape: left.weight")


def test_two_layers_of_one_size_in_no_common_part_are_no_head():
    class Branches(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.left, self.right = nn.Linear(4, size), nn.Linear(4, size)

    refused(Branches(10), Branches(5).state_dict(), "4 of another shape: left.weight")


def test_a_linear_layer_has_one_output_a_class():
    refused(resnet8(20, seed=0), resnet8(1000, seed=1).state_dict(), r"2 of another shape: fc\.weight \[1000, 64\]")


def test_a_head_that_has_not_the_datas_classes_is_refused():
    refused(resnet8(12, seed=0), resnet8(1000, seed=1).state_dict(), r"2 of another shape: fc\.weight \[1000, 64\]")


def test_a_head_without_bias_in_the_file_is_refused():
    state = resnet8(1000, seed=1).state_dict()
    del state["fc.bias"]
    refused(resnet8(10, seed=0), state, r"1 missing: fc\.bias; 1 of another shape: fc\.weight")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e300])
def test_values_must_be_finite_in_the_models_precision(bad):
    state = dict(resnet8(10, seed=1).state_dict())
    state["layer2.0.bn1.running_var"] = torch.full((32,), bad, dtype=torch.float64)
    refused(resnet8(10, seed=0), state, r"values must be finite, but 1 tensors are not: layer2\.0\.bn1\.running_var$")


def test_integers_are_no_weights():
    state = dict(resnet8(10, seed=1).state_dict())
    state["fc.bias"] = torch.ones(10, dtype=torch.int64)
    refused(resnet8(10, seed=0), state, r"1 of another kind: fc\.bias torch\.int64 instead of torch\.float32")


class WithAuxiliary(nn.Module):
    def __init__(self, num_classes: int, *, auxiliary: bool):
        super().__init__()
        if auxiliary:
            self.aux1 = nn.Linear(4, num_classes)
        self.fc = nn.Linear(4, num_classes)


def test_auxiliary_head_of_other_classes():
    model, state = WithAuxiliary(10, auxiliary=True), WithAuxiliary(7, auxiliary=True).state_dict()
    assert fit_state(model, state, source="s", num_classes=10)[1:] == [
        "s: head aux1 has 7 classes, the data 10: replaced by a fresh one, which is still to be trained",
        "s: head fc has 7 classes, the data 10: replaced by a fresh one, which is still to be trained",
    ]


def test_auxiliary_head_on_one_side_only():
    with_head, without = WithAuxiliary(10, auxiliary=True), WithAuxiliary(10, auxiliary=False)
    assert fit_state(with_head, without.state_dict(), source="s", num_classes=10) == [
        "s: 2 tensors loaded",
        "s: has no auxiliary head aux1: it starts fresh",
    ]
    assert fit_state(without, with_head.state_dict(), source="s", num_classes=10) == [
        "s: 2 tensors loaded",
        "s: auxiliary head aux1 is left out, the model has none",
    ]
    assert torch.equal(without.fc.weight, with_head.fc.weight)


def test_torchvisions_model_of_three_channels_does_not_take_one():
    with torch.device("meta"):
        model = resnet18(num_classes=10)
    state = {name: torch.zeros(value.shape, dtype=value.dtype) for name, value in model.state_dict().items()}
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(ValueError, match=r"conv1\.weight \[64, 1, 7, 7\] instead of \[64, 3, 7, 7\]"):
        fit_state(model, state, source="s", num_classes=10)


HEADS = {
    "fcn_resnet50": ["classifier.4"],
    "deeplabv3_mobilenet_v3_large": ["classifier.4"],
    "lraspp_mobilenet_v3_large": ["classifier.low_classifier", "classifier.high_classifier"],
    "retinanet_resnet50_fpn": ["head.classification_head.cls_logits"],
    "fcos_resnet50_fpn": ["head.classification_head.cls_logits"],
    "ssd300_vgg16": [f"head.classification_head.module_list.{level}" for level in range(6)],
    "ssdlite320_mobilenet_v3_large": [f"head.classification_head.module_list.{level}.1" for level in range(6)],
    "fasterrcnn_mobilenet_v3_large_320_fpn": ["roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred"],
}
SAID = {
    "lraspp_mobilenet_v3_large": "classifier",
    "ssd300_vgg16": "head.classification_head.module_list",
    "ssdlite320_mobilenet_v3_large": "head.classification_head.module_list",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "roi_heads.box_predictor",
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_of_torchvisions_dense_models(name):
    factory = getattr(segmentation if name in segmentation.__dict__ else detection, name)
    with torch.device("meta"):
        shapes = {
            key: value.shape for key, value in factory(weights_backbone=None, num_classes=91).state_dict().items()
        }
    state = {key: torch.full(shape, 0.5) for key, shape in shapes.items() if not key.endswith("num_batches_tracked")}
    model = factory(weights_backbone=None, num_classes=4)
    messages = fit_state(model, state, source="s", num_classes=4)
    said = SAID.get(name, HEADS[name][0])
    assert messages[1:] == [
        f"s: head {said} has 91 classes, the data 4: replaced by a fresh one, which is still to be trained"
    ]
    fresh = {
        key.rpartition(".")[0]
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked") and not bool((value == 0.5).all())
    }
    assert sorted(fresh) == sorted(HEADS[name])


def test_the_auxiliary_head_of_a_segmentation_model():
    model = segmentation.fcn_resnet50(weights_backbone=None, num_classes=4, aux_loss=True)
    state = segmentation.fcn_resnet50(weights_backbone=None, num_classes=21, aux_loss=True).state_dict()
    assert fit_state(model, state, source="s", num_classes=4)[1:] == [
        "s: head aux_classifier.4 has 21 classes, the data 4: replaced by a fresh one, which is still to be trained",
        "s: head classifier.4 has 21 classes, the data 4: replaced by a fresh one, which is still to be trained",
    ]
    assert torch.equal(model.aux_classifier[0].weight, state["aux_classifier.0.weight"])


def test_other_anchors_are_no_other_classes():
    with torch.device("meta"):
        theirs = detection.retinanet_resnet50_fpn(weights_backbone=None, num_classes=91).state_dict()
        anchors = detection.anchor_utils.AnchorGenerator(((8,),) * 5, ((1.0, 2.0),) * 5)
        ours = detection.RetinaNet(
            detection.retinanet_resnet50_fpn(weights_backbone=None).backbone, 4, anchor_generator=anchors
        )
    with pytest.raises(ValueError, match=r"4 of another shape: head.classification_head.cls_logits.weight \[819, "):
        fit_state(ours, theirs, source="s", num_classes=4)
