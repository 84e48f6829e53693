"""From ``{use: NAME, **options}`` to objects, and every mistake on the way."""
# ruff: noqa: E501  # a table of cases, one a line

from __future__ import annotations

import importlib
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from distill.blueprint import RejectedError
from distill.build import blueprint, build, check
from distill.data import Digits
from distill.paths import AttentionTransfer, SoftTarget
from distill.slots import AGGREGATOR, DATASET, MODEL, OPTIMIZER, PATH, SCHEDULER, SLOTS, TASK, TRANSFORM


def found(spec, slot, **options):
    return {problem.key: problem.message for problem in check(spec, slot, **options)}


@pytest.fixture
def optimizer():
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)


def test_a_mapping_becomes_an_object():
    path = build({"use": "SoftTarget", "temperature": 2}, PATH)
    assert type(path) is SoftTarget
    assert path.temperature == 2.0
    assert type(build({"use": "AttentionTransfer"}, PATH)) is AttentionTransfer
    aggregator = build({"use": "Fixed", "weights": {"a": 1, "b": 0.1}}, AGGREGATOR)
    assert aggregator.weights == {"a": 1.0, "b": 0.1}


def test_names_and_options_are_judged_together():
    spec = {"use": "Digits", "chanels": 3, "size": "big", "split": {"trian": 5, "teacher": "some"}, "augment": [{}, 3]}
    problems = found(spec, DATASET)
    assert set(problems) == {"chanels", "size", "split.trian", "split.teacher", "augment.0", "augment.1"}
    with pytest.raises(ValueError, match=r"chanels.*size.*split"):
        build(spec, DATASET)


def test_an_unknown_option_names_class_options_and_the_nearest():
    [problem] = check({"use": "AttentionTransfer", "temprature": 3}, PATH)
    text = "AttentionTransfer has no option 'temprature'; it takes taps = 'auto'. Did you mean 'taps'?"
    assert str(problem) == f"temprature: {text}"


@pytest.mark.parametrize("spec", ["SoftTarget", None, 3, [], {}, {"temperature": 4}, {"use": 3}, {"use": None}])
def test_what_is_no_specification(spec):
    [problem] = check(spec, PATH)
    assert problem.key == ""
    assert "'use'" in problem.message


def test_a_bare_name_is_told_how_to_be_written():
    [problem] = check("SoftTarget", PATH)
    assert "{use: SoftTarget}" in problem.message


def test_nested_specifications_are_checked_and_built():
    spec = {
        "use": "Digits",
        "size": 16,
        "split": {"validation": 100},
        "augment": [
            {"use": "RandomCrop", "padding": 2},
            {"use": "EachImage", "transform": {"use": "torchvision.transforms.v2.RandomRotation", "degrees": 5}},
        ],
    }
    dataset = build(spec, DATASET)
    assert type(dataset) is Digits
    assert dataset.split.validation == 100
    assert [type(item).__name__ for item in dataset.transforms] == ["RandomCrop", "EachImage"]
    spec["augment"][1]["transform"]["use"] = "torchvision.transforms.v2.RandomRotatoin"
    [problem] = check(spec, DATASET)
    assert (problem.key, problem.nearest) == ("augment.1.transform.use", "torchvision.transforms.v2.RandomRotation")


def test_functions_cannot_come_from_a_file():
    problems = found(
        {"use": "EachImage", "transform": {"use": "torchvision.transforms.v2.Lambda", "lambd": "os.system"}}, TRANSFORM
    )
    assert "a file cannot give" in problems["transform.lambd"]


def test_a_constructor_s_complaint_is_heard_before_anything_starts():
    assert found({"use": "SoftTarget", "temperature": -1}, PATH) == {}
    assert "above 0" in found({"use": "SoftTarget", "temperature": -1}, PATH, provided={})["temperature"]
    with pytest.raises(RejectedError) as caught:
        build({"use": "SoftTarget", "temperature": -1}, PATH)
    assert caught.value.problem.key == "temperature"


def test_a_constructor_of_the_user_s_own_may_raise_anything(tmp_path, monkeypatch):
    source = (
        "from distill.paths import Logits\nclass Mine(Logits):\n    def __init__(self):\n        raise KeyError('x')\n"
    )
    (tmp_path / "own_raising_for_build.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    spec = {"use": "own_raising_for_build.Mine"}
    assert found(spec, PATH, modules=["own_raising_for_build"], provided={}) == {"": "KeyError: 'x'"}


def test_a_complaint_of_a_nested_object_says_where_it_stands():
    spec = {"use": "Digits", "augment": [{"use": "RandomCrop"}, {"use": "RandomCrop", "padding": -1}]}
    [problem] = check(spec, DATASET, provided={})
    assert problem.key.startswith("augment.1")


def test_a_missing_folder_is_a_mistake_of_its_option(tmp_path):
    problems = found({"use": "CIFAR10", "root": str(tmp_path / "nowhere")}, DATASET, provided={})
    assert list(problems) == ["root"]
    assert "nowhere" in problems["root"]


@pytest.mark.parametrize("name", ["params", "lr"])
def test_optimizers_get_their_parameters_from_the_program(name):
    problems = found(
        {"use": "torch.optim.SGD", name: -1}, OPTIMIZER, provided={"params": [nn.Parameter(torch.zeros(1))]}
    )
    assert list(problems) == [name]


def test_an_integer_is_a_float_and_a_bool_is_neither(optimizer):
    assert (
        build({"use": "torch.optim.SGD", "lr": 1}, OPTIMIZER, params=[nn.Parameter(torch.zeros(1))]).defaults["lr"]
        == 1.0
    )
    assert "true" in found({"use": "torch.optim.SGD", "lr": True}, OPTIMIZER)["lr"]
    assert (
        "a whole number" in found({"use": "torch.optim.lr_scheduler.StepLR", "step_size": True}, SCHEDULER)["step_size"]
    )


def test_schedules_of_schedules(optimizer):
    spec = {
        "use": "torch.optim.lr_scheduler.SequentialLR",
        "milestones": [2],
        "schedulers": [
            {"use": "torch.optim.lr_scheduler.LinearLR", "start_factor": 0.5, "total_iters": 2},
            {"use": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 4},
        ],
    }
    built = build(spec, SCHEDULER, optimizer=optimizer)
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        built.step()
    # By hand: 0.5, 0.75 of 0.1 while warming up, then 0.1 * (1 + cos(pi * k / 4)) / 2.
    assert rates == pytest.approx([0.05, 0.075, 0.1, 0.0853553, 0.05, 0.0146447], abs=1e-6)
    spec["schedulers"][1]["T_maxx"] = 3
    [problem] = check(spec, SCHEDULER, provided={"optimizer": optimizer})
    assert (problem.key, problem.nearest) == ("schedulers.1.T_maxx", "T_max")


def test_what_the_file_says_wins_over_what_the_program_offers(optimizer):
    one_cycle = {"use": "torch.optim.lr_scheduler.OneCycleLR", "max_lr": 0.1}
    assert build(one_cycle, SCHEDULER, optimizer=optimizer, total_steps=7).total_steps == 7
    assert build({**one_cycle, "total_steps": 5}, SCHEDULER, optimizer=optimizer, total_steps=7).total_steps == 5


def test_what_a_signature_does_not_name_is_not_passed(optimizer):
    assert build(
        {"use": "torch.optim.lr_scheduler.StepLR", "step_size": 2}, SCHEDULER, optimizer=optimizer, total_steps=7
    )


@pytest.mark.parametrize("name", ["ResNet8", "WRN_16_1", "torchvision.models.resnet18", "torchvision.models.vit_b_16"])
def test_models_get_their_classes_and_where_they_can_their_channels(name):
    with torch.device("meta"):
        model = build({"use": name}, MODEL, num_classes=7, in_channels=3)
    assert [module for module in model.modules() if isinstance(module, nn.Linear)][-1].out_features == 7


@pytest.mark.parametrize("option", ["num_classes", "in_channels", "weights"])
def test_a_model_s_specification_does_not_say_what_the_data_or_the_section_say(option):
    assert list(found({"use": "ResNet8", option: 3}, MODEL)) == [option]


def test_a_torchvision_builder_knows_the_options_of_its_class():
    with torch.device("meta"):
        model = build({"use": "torchvision.models.resnet18", "width_per_group": 64}, MODEL, num_classes=5)
    assert model.fc.out_features == 5
    [problem] = check({"use": "torchvision.models.resnet18", "width_per_grop": 64}, MODEL)
    assert problem.nearest == "width_per_group"


OWN = """
from typing import Any
from torch import nn
from distill.paths import Logits

class Weighted(Logits):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"scale must be above 0, found {scale}")
        self.scale = scale

def net(**options: Any) -> nn.Module:
    return nn.Linear(options["in_channels"], options["num_classes"])
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_paths_for_build.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return ["own_paths_for_build"]


def test_classes_of_the_user_s_own(own):
    spec = {"use": "own_paths_for_build.Weighted", "scale": 3}
    assert build(spec, PATH, modules=own).scale == 3.0
    assert list(found(spec, PATH)) == ["use"]
    assert list(found({**spec, "scale": 0}, PATH, modules=own, provided={})) == ["scale"]


def test_a_factory_that_takes_anything_is_given_what_the_data_say(own):
    model = build({"use": "own_paths_for_build.net"}, MODEL, modules=own, num_classes=7, in_channels=3)
    assert (model.in_features, model.out_features) == (3, 7)


REQUIRED = {
    **{name: {"backbone": {"use": "ResNet8", "width": 16}} for name in ("DeepLabV3", "FCN", "LRASPP")},
    **{
        name: {"backbone": {"use": "ResNet8", "width": 16}, "strides": [4, 8]}
        for name in ("DistributionFCOS", "FCOS", "FasterRCNN", "RetinaNet", "SSD", "SSDLite")
    },
    "Fixed": {"weights": {"a": 1.0}},
    "GradientBalance": {"method": "PCD"},
    "GradientDirection": {"method": "ConFIG"},
    "WideResNet": {"depth": 16, "widen": 2},
    "EachImage": {"transform": {"use": "torchvision.transforms.v2.RandAugment"}},
    "RandomResizedCrop": {"size": 8},
    "RandomScaleCrop": {"size": [8, 12]},
}


def write_record(path):
    pq.write_table(pa.table({"progress": [0.0], "a/weight": [1.0]}), path)


FILES = {"Replay": {"file": write_record}}
"""What writes the files that options of this name point to."""


def registered():
    slots = (PATH, AGGREGATOR, TASK, MODEL, TRANSFORM)
    return [
        pytest.param(slot, name, id=name) for slot in slots for name in importlib.import_module(slot.package).__all__
    ]


@pytest.mark.parametrize(("slot", "name"), registered())
def test_everything_registered_can_be_checked_completed_and_checked_again(slot, name, tmp_path):
    files = {option: tmp_path / option for option in FILES.get(name, {})}
    for option, path in files.items():
        FILES[name][option](path)
    provided = {"num_classes": 10, "in_channels": 3} if slot is MODEL else {}
    spec = {"use": name, **REQUIRED.get(name, {}), **{option: str(path) for option, path in files.items()}}
    with torch.device("meta" if slot is MODEL else "cpu"):
        assert check(spec, slot, provided=provided) == []
    complete = blueprint(spec, slot).plain()
    assert json.loads(json.dumps(complete)) == complete
    assert complete.items() >= spec.items() or name == "EachImage"
    assert check(complete, slot) == []
    assert not set(complete) & set(slot.reserved)
    assert blueprint(complete, slot).plain() == complete


def test_completing_writes_out_our_defaults_and_not_those_of_others():
    soft_target = {"use": "SoftTarget", "temperature": 4.0, "standardize": False}
    assert blueprint({"use": "SoftTarget"}, PATH).plain() == soft_target
    assert blueprint({"use": "torch.optim.SGD", "lr": 1}, OPTIMIZER).plain() == {"use": "torch.optim.SGD", "lr": 1.0}
    split = blueprint({"use": "Digits", "split": {"validation": 5}}, DATASET).plain()["split"]
    assert split == {"validation": 5, "train": None, "teacher": "same", "test": 0.2, "seed": 0, "protocol": "holdout"}


def test_every_slot_says_what_stands_there():
    assert all(slot.base_class().__module__ for slot in SLOTS.values())


@pytest.mark.parametrize(
    ("spec", "key", "said", "close"),
    [
        ({"use": "Adaptive", "initial": "logloss"}, "initial", "must be 'log_loss' or a number, found", "log_loss"),
        ({"use": "Equal", "granularity": "layers"}, "granularity", "'path' or 'layer' or a mapping, found", "layer"),
        ({"use": "Equal", "modifiers": {"use": "Bound", "growth": 2}}, "modifiers", "(of modifiers), found a mapping; put it in a list", ""),
        ({"use": "Equal", "modifiers": 3}, "modifiers", "(of modifiers), found 3", ""),
        ({"use": "Equal", "granularity": {"all": "a"}}, "granularity.all", "found the text 'a'; put it in a list", ""),
        ({"use": "Equal", "modifiers": [{"use": "LogSum"}]}, "modifiers.0.use", "unknown modifier 'LogSum', for LogSum is an aggregator; valid: Bound", ""),
        ({"use": "Bound"}, "use", "unknown aggregator 'Bound', for Bound is a modifier; valid: ", ""),
        ({"use": "AdaptivePaper", "modifiers": []}, "modifiers", "it is a preset of Adaptive, which has; it takes granularity = 'path'", ""),
        ({"use": "GradientDirection", "method": "ConFIG", "modifiers": [{"use": "Ramp"}]}, "modifiers", "change weights, and GradientDirection has none", ""),
        ({"use": "Adaptive", "initial": -20}, "max_weight", "at least the first weight, 1 * exp(-initial), found 10000 with alpha_distill: 1 and initial: -20", ""),
    ],
)  # fmt: skip
def test_what_aggregators_answer_to_typical_mistakes(spec, key, said, close):
    [problem] = check(spec, AGGREGATOR, provided={})
    assert (problem.key, problem.nearest) == (key, close)
    assert said in problem.message


def test_what_a_class_refuses_is_not_offered():
    [problem] = check({"use": "GradientDirection", "method": "ConFIG", "evry": 3}, AGGREGATOR)
    assert "modifiers" not in problem.message
    assert "granularity" in problem.message
