"""Names resolve by contract: nothing but what a slot is for can be reached, under whatever prefix."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType

import pytest
import torch
import torchvision
from torchvision.transforms import v2

import distill.slots
from distill.optimization import LENGTHS
from distill.slots import IMAGE_TRANSFORM, MODEL, OPTIMIZER, PATH, SCHEDULER, SLOTS, UnknownNameError

MODELS = {
    "torchvision.models": torchvision.models,
    "torchvision.models.segmentation": torchvision.models.segmentation,
    "torchvision.models.detection": torchvision.models.detection,
}
ALLOWED = ["torch.optim", "torch.optim.lr_scheduler", *MODELS, "torchvision.transforms.v2"]
DANGEROUS = [
    "os.system",
    "os.execv",
    "os.remove",
    "os.popen",
    "subprocess.Popen",
    "subprocess.run",
    "shutil.rmtree",
    "torch.load",
    "torch.hub.load",
    "builtins.eval",
    "builtins.exec",
    "importlib.import_module",
    "pickle.loads",
    "ctypes.CDLL",
    "sys.exit",
]
DEPTH = 4


@pytest.fixture(autouse=True)
def no_suggestions(monkeypatch, request):
    """Close matches cost more than all else when ten thousand names are refused."""
    if "suggest" not in request.node.name:
        monkeypatch.setattr(distill.slots, "nearest", lambda name, names: "")


def dotted_names(module_name: str) -> dict[str, object]:
    """Return all dotted names to depth 4; below the first level each object is walked once, by its first name."""
    names: dict[str, object] = {}
    seen: set[int] = set()
    level: list[tuple[str, object]] = [(module_name, importlib.import_module(module_name))]
    for depth in range(DEPTH):
        following = []
        for name, owner in level:
            if id(owner) in seen or not (isinstance(owner, ModuleType) or (depth == 1 and inspect.isclass(owner))):
                continue
            seen.add(id(owner))
            for attribute in dir(owner):
                child = getattr(owner, attribute, None)
                names[f"{name}.{attribute}"] = child
                following.append((f"{name}.{attribute}", child))
        level = following
    return names


def is_legitimate(slot, name: str, value: object) -> bool:
    """The rule again, written down independently: a public class or builder of the very module."""
    module, _, last = name.rpartition(".")
    if module not in slot.outside:
        return False
    if slot is MODEL:
        listed = torchvision.models.list_models(module=MODELS[module])
        return last in listed and not last.startswith(("maskrcnn", "keypointrcnn"))
    base = {"optimizer": torch.optim.Optimizer, "scheduler": torch.optim.lr_scheduler.LRScheduler}.get(
        slot.name, v2.Transform
    )
    return inspect.isclass(value) and issubclass(value, base) and value is not base and not last.startswith("_")


@pytest.mark.parametrize("module", ALLOWED)
def test_walking_all_dotted_names_finds_only_legitimate_ones(module):
    names = dotted_names(module)
    assert any(name.endswith(".os.system") for name in dotted_names("torch.optim")), "the walk must reach the danger"
    assert len(names) > 500
    # Below the first level names are refused for having two segments; every tenth or so there keeps this fast.
    first = [name for name in names if name.count(".") == module.count(".") + 1]
    deep = [name for name in names if name.count(".") > module.count(".") + 1]
    kept = first + deep[:: max(1, len(deep) // 1500)]
    for slot in [slot for slot in SLOTS.values() if module in slot.outside] + [PATH]:
        accepted = {name for name in kept if resolves(slot, name)}
        assert accepted == {name for name in kept if is_legitimate(slot, name, names[name])}, slot.name


def resolves(slot, name: str) -> bool:
    try:
        slot.resolve(name)
    except UnknownNameError:
        return False
    return True


@pytest.mark.parametrize("slot", SLOTS.values(), ids=lambda slot: slot.name)
def test_no_dangerous_callable_is_reached(slot):
    routes = ["", "torch.optim.", "torch.optim.swa_utils.torch.", "torch.optim.lr_scheduler.", "torchvision.models."]
    routes += ["torchvision.transforms.v2.", "torch.optim.swa_utils.", "distill.paths.", "torch."]
    for route in routes:
        for name in DANGEROUS:
            assert not resolves(slot, f"{route}{name}"), f"{route}{name}"


def test_the_known_hole_is_a_real_callable_that_the_contract_refuses():
    import os

    assert torch.optim.swa_utils.torch.os.system is os.system
    with pytest.raises(UnknownNameError, match="not allowed"):
        OPTIMIZER.resolve("torch.optim.swa_utils.torch.os.system")


def test_all_public_optimizers_schedulers_and_models_are_accepted():
    for slot, module, base in [
        (OPTIMIZER, torch.optim, torch.optim.Optimizer),
        (SCHEDULER, torch.optim.lr_scheduler, torch.optim.lr_scheduler.LRScheduler),
    ]:
        public = [name for name in module.__all__ if inspect.isclass(getattr(module, name))]
        wanted = [
            name for name in public if issubclass(getattr(module, name), base) and getattr(module, name) is not base
        ]
        assert len(wanted) >= 14
        for name in wanted:
            assert slot.resolve(f"{module.__name__}.{name}") is getattr(module, name)
    for module, package in MODELS.items():
        for name in torchvision.models.list_models(module=package):
            if "maskrcnn" not in name and "keypointrcnn" not in name:
                assert MODEL.resolve(f"{module}.{name}") is getattr(package, name)


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2", "keypointrcnn_resnet50_fpn"])
def test_what_finds_more_than_boxes_is_no_model(name):
    with pytest.raises(UnknownNameError, match=f"torchvision.models.detection has no model '{name}'"):
        MODEL.resolve(f"torchvision.models.detection.{name}")


@pytest.mark.parametrize("slot", [slot for slot in SLOTS.values() if slot.package], ids=lambda slot: slot.name)
def test_the_registry_is_the_package_s_all(slot):
    package = importlib.import_module(slot.package)
    assert sorted(slot.registry()) == sorted(package.__all__)
    for name, target in slot.registry().items():
        assert slot.resolve(name) is target


def test_abstract_bases_are_no_choice():
    for name in ("Path", "FeaturePath", "LogitPath"):
        assert not resolves(PATH, name)
    assert not resolves(OPTIMIZER, "torch.optim.Optimizer")
    assert not resolves(IMAGE_TRANSFORM, "torchvision.transforms.v2.Transform")


MODULE = """
import os
from os import system
from torch import nn
from distill.paths import Logits

class Mine(Logits):
    pass

class Model(nn.Module):
    def __init__(self, num_classes: int, width: int = 4) -> None:
        super().__init__()

def make(num_classes: int) -> Model:
    return Model(num_classes)

def untyped(num_classes):
    return Model(num_classes)

class _Hidden(Logits):
    pass
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_paths_for_slots.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_paths_for_slots"


def test_modules_of_the_user_s_own_are_named_explicitly(own_module):
    assert not resolves(PATH, f"{own_module}.Mine")
    assert PATH.resolve(f"{own_module}.Mine", [own_module]).__name__ == "Mine"
    assert MODEL.resolve(f"{own_module}.Model", [own_module]).__name__ == "Model"
    assert MODEL.resolve(f"{own_module}.make", [own_module]).__name__ == "make"


@pytest.mark.parametrize("name", ["system", "os.system", "Logits", "Model", "untyped", "_Hidden", "make", "missing"])
def test_only_what_the_module_itself_defines_and_of_the_right_kind(own_module, name):
    with pytest.raises(UnknownNameError):
        PATH.resolve(f"{own_module}.{name}", [own_module])


def test_a_class_that_lacks_what_its_base_declares_is_told_so(tmp_path, monkeypatch):
    source = (
        "from distill.tasks.detectors import OwnDetector\nclass Mine(OwnDetector):\n    def forward(self, x): ...\n"
    )
    (tmp_path / "own_abstract_for_slots.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    message = "own_abstract_for_slots.Mine must have what its base declares, found no detections, losses"
    with pytest.raises(UnknownNameError, match=message):
        MODEL.resolve("own_abstract_for_slots.Mine", ["own_abstract_for_slots"])


def test_a_module_that_cannot_be_imported_is_a_mistake_with_its_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_for_slots.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownNameError, match="ModuleNotFoundError: No module named 'a_module_that_is_not_there'"):
        PATH.resolve("broken_for_slots.X", ["broken_for_slots"])


@pytest.mark.parametrize(
    ("slot", "name", "expected"),
    [
        (PATH, "SoftTargt", "SoftTarget"),
        (PATH, "distill.paths.SoftTarget", "SoftTarget"),
        (OPTIMIZER, "SGD", "torch.optim.SGD"),
        (OPTIMIZER, "torch.optim.sgd", "torch.optim.SGD"),
        (OPTIMIZER, "torch.optim.AdmaW", "torch.optim.AdamW"),
        (MODEL, "resnet18", "torchvision.models.resnet18"),
        (MODEL, "ResNet9", "ResNet8"),
        (MODEL, "torchvision.models.resnet81", "torchvision.models.resnet18"),
    ],
)
def test_unknown_names_suggest_the_nearest(slot, name, expected):
    with pytest.raises(UnknownNameError) as caught:
        slot.resolve(name)
    assert caught.value.problem.nearest == expected
    assert caught.value.problem.key == "use"


def test_the_lengths_of_a_schedule_are_those_that_training_fills_in():
    assert set(SCHEDULER.offers) == set(LENGTHS)
