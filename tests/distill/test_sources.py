"""Where paths act: the model's own tensors behind the taps, and the parameters of its last stage."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from classifier_paths import ON_CLASSIFIERS
from torch import Tensor, nn
from torchvision.models import SwinTransformer, VisionTransformer, mobilenet_v2, resnet18, vgg11

from distill import paths as paths_module
from distill.aggregators import Adaptive, Equal
from distill.aggregators.gradients import SharedGradients, TapGradients
from distill.aggregators.modifiers import CosineGate
from distill.batch import Batch, Samples
from distill.distiller import Distiller
from distill.last_parameters import last_parameters
from distill.models import ResNet8, ResNet20, WideResNet
from distill.paths import AB, FSP, OFD, AttentionTransfer, Logits, SoftTarget
from distill.paths import Path as KnowledgePath
from distill.taps import OUTPUT, TapReader, probe
from distill.tasks import Classification
from distill.teacher import Teacher

TASK = Classification()
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
LABELS = torch.tensor([0, 3])


def vit() -> nn.Module:
    return VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=5)


def swin() -> nn.Module:
    return SwinTransformer([2, 2], 8, [1, 1], [2, 2], [2, 2], num_classes=5, stochastic_depth_prob=0.0)


MODELS: dict[str, Any] = {
    "resnet8": lambda: ResNet8(num_classes=5, width=4),
    "resnet18": lambda: resnet18(num_classes=5),
    "vit": vit,
    "swin": swin,
}
TAPS = [
    ("resnet8", "layer1", "nchw"),
    ("resnet8", "layer3", "nchw"),
    ("resnet18", "layer2.1.relu:input", "nchw"),  # enters an in-place ReLU that its block calls twice
    ("resnet8", "layer2.0.relu:input", "nchw"),
    ("vit", "encoder.layers.encoder_layer_0", "tokens"),
    ("vit", "encoder", "tokens"),
    ("swin", "features.1", "nhwc"),
    ("swin", "norm", "nhwc"),
    ("resnet8", OUTPUT, "vector"),
    ("vit", OUTPUT, "vector"),
]


def make(name: str) -> nn.Module:
    torch.manual_seed(1)
    model: nn.Module = MODELS[name]().double().eval()
    for parameter in model.parameters():  # a ViT's head starts at zero
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def path_loss(activation: Tensor) -> Tensor:
    return (activation.float() - 0.1).square().mean()


def by_the_main_road(model: nn.Module, tap: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the model at the tap and go on from a leaf there: the output, and the gradients of task and path at it."""
    leaves: list[Tensor] = []
    calls = []

    def cut(tensor: Tensor) -> Tensor:
        leaves.append(tensor.detach().clone().requires_grad_())
        return leaves[0].clone()  # what follows may work in place

    def leave(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return cut(output)

    def enter(module: nn.Module, inputs: Any) -> Any:
        calls.append(1)
        return (cut(inputs[0]),) if len(calls) == tap.entering + 1 else None

    module = model.get_submodule(tap.module)
    handle = module.register_forward_hook(leave) if tap.entering is None else module.register_forward_pre_hook(enter)
    output = model(IMAGES)
    handle.remove()
    (leaf,) = leaves
    task = TASK.loss(output, Batch(IMAGES, LABELS, LABELS))
    (of_task,) = torch.autograd.grad(task, leaf, retain_graph=True)
    (of_path,) = torch.autograd.grad(path_loss(tap.read(leaf)), leaf)
    return output, of_task, of_path


@pytest.mark.parametrize(("name", "tap_name", "layout"), TAPS)
def test_gradients_at_a_source_are_those_of_a_model_that_is_cut_there(name: str, tap_name: str, layout: str) -> None:
    model = make(name)
    plain = model(IMAGES)
    found = probe(model, IMAGES, TASK.logits)
    tap = found[tap_name]
    assert tap.layout == layout
    wanted_output, of_task, of_path = by_the_main_road(copy.deepcopy(model), tap)
    reader = TapReader(model, [tap], TASK.logits)
    sources: dict[str, Tensor] = {}
    output, taps = reader(IMAGES, sources)
    assert set(sources) == set(taps) == {OUTPUT, tap.name}
    assert torch.equal(output, plain)
    assert torch.equal(output, wanted_output)
    source = sources[tap.name]
    assert source.shape == of_task.shape
    task = TASK.loss(output, Batch(IMAGES, LABELS, LABELS))
    for loss, wanted in ((task, of_task), (path_loss(taps[tap.name]), of_path)):
        (gradient,) = torch.autograd.grad(loss, source, retain_graph=True)
        assert wanted.abs().sum() > 0
        torch.testing.assert_close(gradient, wanted)
    products = TapGradients(task, path_loss(taps[tap.name])[None], [[source]]).against_task()
    torch.testing.assert_close(products[0, 0], (of_task * of_path).sum())


def test_without_sources_nothing_is_kept() -> None:
    model = make("resnet8")
    reader = TapReader(model, [probe(model, IMAGES, TASK.logits)["layer1"]], TASK.logits)
    _, taps = reader(IMAGES)
    assert set(taps) == {OUTPUT, "layer1"}


def distiller_of(paths: dict[str, KnowledgePath], granularity: Any = "path", name: str = "resnet8") -> Distiller:
    torch.manual_seed(0)
    teacher = Teacher(make(name), TASK)
    return Distiller(make(name), teacher, paths, Equal(granularity=granularity), TASK, sample=IMAGES)


def first_stage() -> AttentionTransfer:
    return AttentionTransfer(taps=[{"student": "layer1", "teacher": "layer1"}])


def first_two() -> AttentionTransfer:
    return AttentionTransfer(taps=[{"student": name, "teacher": name} for name in ("layer2", "layer1")])


def test_each_key_acts_at_the_deepest_tap_that_its_paths_read() -> None:
    paths: dict[str, KnowledgePath] = {
        "first": first_stage(),
        "two": first_two(),
        "all": AttentionTransfer(),
        "kd": SoftTarget(),
    }
    assert distiller_of(paths)._places == [("layer1",), ("layer2",), ("layer3",), (OUTPUT,)]
    groups = {"late": ["kd", "first"], "early": ["two"], "middle": ["all"]}
    assert distiller_of(paths, groups)._places == [(OUTPUT,), ("layer2",), ("layer3",)]


def test_each_layer_acts_at_its_own_tap() -> None:
    # At the path's deepest one, the loss of a layer before it has no gradient.
    assert distiller_of({"two": first_two(), "kd": Logits()}, "layer")._places == [("layer2",), ("layer1",), (OUTPUT,)]
    assert distiller_of({"turns": FSP()}, "layer")._places == [("layer2",), ("layer3",)]


OPTIONS: dict[str, dict[str, Any]] = {"FT": {"pretrain": 0.0}, "KTA": {"pretrain": 0.0}}
"""Of paths from which the student learns nothing at first."""


@pytest.mark.parametrize("name", ON_CLASSIFIERS)
def test_every_layer_of_every_path_has_a_gradient_where_it_acts(name: str) -> None:
    path = getattr(paths_module, name)(**OPTIONS.get(name, {}))
    torch.manual_seed(0)
    teacher = Teacher(ResNet20(num_classes=5, width=8), TASK)
    path.advance(1.0)
    aggregator = Equal(granularity="layer", modifiers=[CosineGate(every=1, wait=1)])
    samples = Samples(torch.arange(6), torch.arange(6) % 5)
    sample = batch().images[:2]
    distiller = Distiller(
        ResNet8(num_classes=5), teacher, {"it": path}, aggregator, TASK, sample=sample, samples=samples
    )
    distiller.train()
    distiller.advance(1.0)
    distiller(batch(), distiller.targets(teacher(batch().images)))
    assert aggregator.modifiers[0]._looks.tolist() == [1] * len(path.layers)


@pytest.mark.parametrize("name", ["resnet18", "resnet8"])
@pytest.mark.parametrize("path", [OFD, AB])
def test_taps_in_front_of_activations_have_a_depth(path: Any, name: str) -> None:
    # The ReLU of a torchvision block runs twice and is no tap itself; what enters its last call is.
    paths: dict[str, KnowledgePath] = {"alone": path(), "among": path(), "at": AttentionTransfer()}
    distiller = distiller_of(paths, {"one": ["alone"], "both": ["at", "among"]}, name)
    before = {pair.student for pair in distiller.path("alone").pairs}
    last = {"resnet18": "layer3", "resnet8": "layer3"}[name]  # layer4 has one place at this size
    assert len(before) > 1
    assert distiller._places[0] == (max(before),)
    assert max(before).startswith(last)
    assert distiller._places[1] == (last,)


def test_depth_follows_the_forward_pass() -> None:
    found = probe(make("resnet18"), IMAGES, TASK.logits)
    order = ["layer1.1.relu:input", "layer1", "layer2.1.relu:input", "layer2", "layer4.1.relu:input", "layer4", OUTPUT]
    depths = [found.depth(name) for name in order]
    assert depths == sorted(set(depths))


def names_of(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    chosen = {id(parameter) for parameter in parameters}
    return [name for name, parameter in model.named_parameters() if id(parameter) in chosen]


@pytest.mark.parametrize(
    ("build", "first", "last"),
    [
        (MODELS["resnet18"], "layer4.0.conv1.weight", "layer4.1.bn2.bias"),
        (MODELS["resnet8"], "layer3.0.conv1.weight", "layer3.0.shortcut.1.bias"),
        (lambda: mobilenet_v2(num_classes=5), "features.14.conv.0.0.weight", "features.18.1.bias"),
        (lambda: vgg11(num_classes=5), "features.16.weight", "features.18.bias"),  # the last one but a pooling
        (vit, "encoder.layers.encoder_layer_1.ln_1.weight", "encoder.ln.bias"),
        (swin, "features.2.reduction.weight", "norm.bias"),
        (lambda: WideResNet(depth=10, widen=1, num_classes=5), "layer3.0.bn1.weight", "norm.0.bias"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 6), nn.ReLU(), nn.Linear(6, 5)), "1.weight", "1.bias"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), "1.weight", "1.bias"),
    ],
)
def test_the_parameters_of_the_last_stage(build: Any, first: str, last: str) -> None:
    model = build()
    found = names_of(model, last_parameters(model, probe(model, IMAGES.float(), TASK.logits)))
    everything = [name for name, _ in model.named_parameters()]
    assert found == everything[everything.index(first) : everything.index(last) + 1]


def test_frozen_parameters_are_none_of_them() -> None:
    model = ResNet8(num_classes=5, width=4)
    model.layer3.requires_grad_(False)
    found = names_of(model, last_parameters(model, probe(model, IMAGES.float(), TASK.logits)))
    assert found
    assert all(name.startswith("layer2.") for name in found)


def batch() -> Batch:
    images = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    return Batch(images, torch.arange(6) % 5, torch.arange(6))


def gated(scope: Any, precision: Any) -> tuple[Distiller, Teacher]:
    torch.manual_seed(0)
    student, teacher = MODELS["resnet8"](), Teacher(MODELS["resnet8"](), TASK)
    aggregator = Adaptive(modifiers=[CosineGate(scope, every=1, wait=1, smoothing=0, z=0)])
    paths: dict[str, KnowledgePath] = {"attention": AttentionTransfer(), "kd": SoftTarget()}
    sample = batch().images[:2]
    return Distiller(student, teacher, paths, aggregator, TASK, sample=sample, precision=precision), teacher


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("scope", ["taps", "last", "all"])
def test_a_gated_distiller_decides_by_its_gradients_and_touches_no_other(scope: Any, precision: Any) -> None:
    distiller, teacher = gated(scope, precision)
    distiller.train()
    targets = distiller.targets(teacher(batch().images))
    distiller.advance(0.0)
    step = distiller(batch(), targets)
    assert all(parameter.grad is None for parameter in distiller.parameters())
    gate = distiller.aggregator.modifiers[0]
    assert gate._looks.tolist() == [1, 1]
    assert gate._mean.isfinite().all()
    assert (gate._mean != 0).all()
    assert step.weights.tolist() == gate._gates[[0, 0, 0, 1]].tolist()
    step.total.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in distiller.parameters())
    assert step.total.dtype == torch.float32
    # The gradient is that of the task and of the paths whose gates are open.
    student = distiller.student
    found = [parameter.grad.clone() for parameter in student.parameters()]
    distiller.zero_grad()
    again = distiller(batch(), targets)  # not a new step: the gates stay
    (again.task + (again.weights * again.layers).sum()).backward()
    for ours, parameter in zip(found, student.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-2 if precision == "bfloat16" else 1e-3, atol=1e-4)


def test_the_gate_sees_what_the_student_s_parameters_see() -> None:
    distiller, teacher = gated("all", "float32")
    distiller.train()
    targets = distiller.targets(teacher(batch().images))
    distiller.advance(0.0)
    distiller(batch(), targets)
    fresh, _ = gated("all", "float32")
    fresh.train()
    for parameter in fresh.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step = fresh(batch(), targets)
    losses = [step.task, step.layers[:3].sum(), step.layers[3]]
    rows = []
    for loss in losses:
        fresh.zero_grad(set_to_none=False)
        loss.backward(retain_graph=True)
        rows.append(torch.cat([parameter.grad.flatten() for parameter in fresh.student.parameters()]))
    wanted = [torch.cosine_similarity(row.double(), rows[0].double(), dim=0).item() for row in rows[1:]]
    assert distiller.aggregator.modifiers[0]._mean.tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_nothing_is_looked_at_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    distiller, teacher = gated("taps", "float32")
    distiller.eval()
    calls = []
    monkeypatch.setattr(SharedGradients, "rows", lambda self: calls.append("rows"))
    monkeypatch.setattr(TapGradients, "against_task", lambda self: calls.append("taps"))
    targets = distiller.targets(teacher(batch().images))
    distiller.advance(0.0)
    distiller(batch(), targets)
    with torch.no_grad():
        distiller(batch(), targets)
    assert calls == []
