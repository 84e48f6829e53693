"""Do the golden values notice a wrong sign, norm or reduction?  Each mutant of the source must fail at least one.

A mutant replaces one piece of a module's text; the module is executed aside, and the golden values of
`tests/distill/paths`, `tests/distill/aggregators` and `tests/distill/test_adapter.py` run against what it defines.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from distill import adapter, aggregators, paths

for folder in ("paths", "aggregators", "."):  # the goldens import their neighbours by name, as pytest lets them
    if str(Path(__file__).parent / folder) not in sys.path:
        sys.path.append(str(Path(__file__).parent / folder))

FAMILIES: dict[str, ModuleType] = {
    **dict.fromkeys(paths.__all__, paths),
    **dict.fromkeys(aggregators.__all__, aggregators),
    "Adapter": adapter,
}
PATHS, AGGREGATORS, MOMENTS = "distill.paths.base", "distill.aggregators.base", "distill.moments"
"""Modules beneath the families that mutants can change too."""


@dataclass(frozen=True)
class Mutant:
    """One change of the source that `name` is made of; in its own module, or in one beneath it."""

    name: str
    old: str
    new: str
    base: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.old} -> {self.new}"


def of(name: str, *changes: tuple[str, str], base: str = "") -> list[Mutant]:
    return [Mutant(name, old, new, base) for old, new in changes]


MUTANTS = [
    *of(
        "AttentionTransfer",
        ("norm.square()", "norm"),
        ("vector_norm(features, dim=1)", "vector_norm(features, 1, dim=1)"),
        ("norm.square()", "norm.square() / features.shape[1]"),
        ("vector_norm(features, dim=1)", "vector_norm(features, torch.inf, dim=1)"),
        ("2 * gradients[0]", "gradients[0]"),
        ("features * (2", "features.abs() * (2"),
        ("F.mse_loss(", "F.l1_loss("),
        ("_unit(_pool(target, size)))", "_unit(_pool(target, size)), reduction='sum')"),
        ("_unit(_pool(target, size))", "-_unit(_pool(target, size))"),
        ("_unit(_pool(target, size))", "_pool(_unit(target), size)"),
        ("_unit(_pool(energy, size))", "_pool(_unit(energy), size)"),
        ("energy / (norm + EPSILON)", "energy / norm.clamp_min(EPSILON)"),
        ("energy / (norm + EPSILON)", "energy * (norm + EPSILON)"),
        ("energy / (norm + EPSILON)", "energy"),
        ("(norm + EPSILON)", "(norm - EPSILON)"),
        ("EPSILON = 1e-6", "EPSILON = 1e-8"),
        ("vector_norm(energy, dim", "vector_norm(energy, 1, dim"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d"),
        ("(min(energy.shape[1]", "(max(energy.shape[1]"),
        ("min(energy.shape[2]", "max(energy.shape[2]"),
    ),
    *of(
        "NSTGram",
        ("dim=2, eps=EPSILON", "dim=1, eps=EPSILON"),
        ("dim=2, eps=EPSILON", "dim=2, p=1, eps=EPSILON"),
        ("F.normalize(features.flatten(2), dim=2, eps=EPSILON)", "features.flatten(2)"),
        ("EPSILON = 1e-6", "EPSILON = 1e-12"),
        ("F.mse_loss(", "F.l1_loss("),
        ("gram(student)), target)", "gram(student)), target, reduction='sum')"),
        ("gram(student)), target)", "gram(student)), -target)"),
        ("_cosines(self.adapter(layer).gram(student))", "self.adapter(layer).gram(student)"),
        ("_cosines(self.adapter(layer).gram(student))", "_cosines(student.flatten(2) @ student.flatten(2).mT)"),
        ("clamp_min(EPSILON**2)", "clamp_min(EPSILON)"),
        ("(lengths[:, :, None] * lengths[:, None])", "lengths[:, :, None] ** 2"),
        ("_energy(own) + _energy", "_energy(own) - _energy"),
        ("- 2 * _energy(cross)", "+ 2 * _energy(cross)"),
        ("- 2 * _energy(cross)", "- _energy(cross)"),
        ("4 * gradients[0]", "2 * gradients[0]"),
        ("target.mT, alpha=-1).mT", "target.mT, alpha=1).mT"),
        ("torch.baddbmm(own @ rows.mT, cross,", "torch.baddbmm(own @ rows.mT, cross.mT,"),
        ("target, cross.mT, alpha=-1)", "target, cross.mT, alpha=1)"),
        ("target, cross.mT, alpha=-1)", "target, cross, alpha=-1)"),
        ("rows.shape[1] ** 2", "rows.shape[1]"),
        ("rows.shape[1] ** 2", "rows.shape[2] ** 2"),
        (".clamp_min(0).mean()", ".mean()"),
        (".clamp_min(0).mean()", ".clamp_min(0).sum()"),
        (".square().sum(dim=(1, 2))", ".abs().sum(dim=(1, 2))"),
        (".square().sum(dim=(1, 2))", ".square().mean(dim=(1, 2))"),
        ("tap.channels > tap.height", "tap.channels < tap.height"),
        ("self.adapt(layer, student)", "student"),
    ),
    *of(
        "SoftTarget",
        ("log_softmax(self.soften(student), dim=1)", "log_softmax(self.soften(student), dim=0)"),
        ("self.soften(teacher)", "teacher"),
        ("self.soften(student)", "student"),
        ("self.temperature**2 *", "self.temperature *"),
        ("self.temperature**2 *", "-(self.temperature**2) *"),
        ("divergence(log_p, log_q)", "divergence(log_q, log_p)"),
        (".mean()", ".sum()"),
    ),
    *of(
        "SoftTarget",
        (") / self.temperature", ") * self.temperature"),
        ("temperature: float = 4.0", "temperature: float = 1.0"),
        (".sum(dim=1)", ".mean(dim=1)"),
        (".clamp_min(0)", ""),
        ("(teacher - student)", "(teacher + student)"),
        ("logits - logits.mean", "logits + logits.mean"),
        ("logits.mean(dim=1", "logits.mean(dim=0"),
        ("vector_norm(centred, dim=1", "vector_norm(centred, 1, dim=1"),
        ("logits.shape[1] - 1, 1", "logits.shape[1], 1"),
        base="distill.paths.softened",
    ),
    *of(
        "DKD",
        ("self.alpha * divergence", "self.beta * divergence"),
        ("+ self.beta *", "- self.beta *"),
        ("divergence(binary_p, binary_q)", "divergence(binary_q, binary_p)"),
        ("divergence(other_p, other_q)", "divergence(other_q, other_p)"),
        ("self.temperature**2 *", "self.temperature *"),
        ("parts.mean()", "parts.sum()"),
        ("F.log_softmax(without, dim=1).scatter", "F.log_softmax(logits, dim=1).scatter"),
        ("without.logsumexp(dim=1)", "logits.logsumexp(dim=1)"),
        ("temperature: float = 4.0", "temperature: float = 1.0"),
        ("alpha: float = 1.0", "alpha: float = 0.5"),
        ("beta: float = 8.0", "beta: float = 1.0"),
    ),
    *of(
        "DIST",
        ("between_classes = 1 - ", "between_classes = "),
        ("between_samples = 1 - ", "between_samples = 1 + "),
        ("_correlation(p.mT, q.mT)", "_correlation(p, q)"),
        ("rows - rows.mean(dim=1, keepdim=True)", "rows"),
        ("vector_norm(one, dim=1)", "vector_norm(one, 1, dim=1)"),
        ("self.beta * between_classes", "self.gamma * between_classes"),
        ("self.temperature**2", "self.temperature"),
        ("_correlation(p, q).mean()", "_correlation(p, q).sum()"),
        ("temperature: float = 1.0", "temperature: float = 4.0"),
    ),
    *of(
        "WSLD",
        ("-(-behind", "-(behind"),
        (").expm1()", ").exp()"),
        ("behind / (", "behind * ("),
        ("self.temperature**2 *", "self.temperature *"),
        ("divergence(log_p, log_q)", "divergence(log_q, log_p)"),
        (").mean()", ").sum()"),
        ("_cross_entropy(teacher,", "_cross_entropy(self.soften(teacher),"),
        ("temperature: float = 2.0", "temperature: float = 4.0"),
    ),
    *of(
        "CurriculumTemperature",
        ("(1 + strength) * self.theta.detach() - strength * self.theta", "self.theta"),
        ("- strength * self.theta\n", "+ strength * self.theta\n"),
        ("(1 - torch.cos", "(1 + torch.cos"),
        ("(1 - torch.cos(math.pi * share)) / 2", "share"),
        ("ramp: float = 10 / 240", "ramp: float = 20 / 240"),
        ("low + self.span * torch.sigmoid(reversed_theta)", "low * self.span * torch.sigmoid(reversed_theta)"),
        ("temperature**2 *", "temperature *"),
        ("divergence(log_p, log_q).mean()", "divergence(log_q, log_p).mean()"),
        ("divergence(log_p, log_q).mean()", "-divergence(log_p, log_q).mean()"),
        ("torch.ones(())", "torch.zeros(())"),
        ("span: float = 20.0", "span: float = 10.0"),
    ),
    *of(
        "MultiLevelLogits",
        ("temperature**2 *", ""),
        ("q @ q.mT - p @ p.mT", "q @ q.mT + p @ p.mT"),
        ("q @ q.mT - p @ p.mT", "q @ p.mT - p @ p.mT"),
        (".square().sum() / len(q)", ".square().sum() / q.shape[1]"),
        (".square().sum() / len(q)", ".abs().sum() / len(q)"),
        ("q.mT @ q - p.mT @ p", "q.mT @ p - p.mT @ p"),
        ("/ q.shape[1]", "/ q.shape[1] ** 2"),
        ("divergence(log_p, log_q)", "divergence(log_q, log_p)"),
        ("for each in self.temperatures]).sum()", "for each in self.temperatures]).mean()"),
        ("(2.0, 3.0, 4.0, 5.0, 6.0)", "(4.0,)"),
    ),
    *of(
        "Logits",
        ("F.mse_loss(", "F.l1_loss("),
        ("F.mse_loss(student, teacher)", "F.mse_loss(student, -teacher)"),
        ("F.mse_loss(student, teacher)", "-F.mse_loss(student, teacher)"),
        ("F.mse_loss(student, teacher)", "F.mse_loss(student, teacher, reduction='sum')"),
        ("F.mse_loss(student, teacher)", "(student - teacher).square().sum(dim=1).mean()"),
        (
            "F.mse_loss(student, teacher)",
            "F.mse_loss(student - student.mean(1, True), teacher - teacher.mean(1, True))",
        ),
    ),
    *of("Logits", ("return tensor.to(torch.promote_types(tensor.dtype, torch.float32))", "return tensor"), base=PATHS),
    *of(
        "SoftmaxRegression",
        ("self.adapter.means(student)", "self.adapter(student).amax(dim=(2, 3))"),
        ("self.adapter.means(student)", "self.adapter(student).sum(dim=(2, 3))"),
        ("F.linear(pooled, self.weight, self.bias)", "F.linear(pooled, self.weight)"),
        ("F.linear(pooled, self.weight, self.bias)", "F.linear(pooled, -self.weight, self.bias)"),
        ("F.mse_loss(", "F.l1_loss("),
        ("F.mse_loss(logits, widen(target[pair.layer]))", "F.mse_loss(logits, -widen(target[pair.layer]))"),
        ("widen(target[pair.layer]))", "widen(target[pair.layer]), reduction='sum')"),
        ("self.adapter.means(student)", "student.mean(dim=(2, 3))"),
    ),
    *of(
        "FeatureMap",
        ("teacher.mean(dim=(2, 3))", "teacher.amax(dim=(2, 3))"),
        ("teacher.mean(dim=(2, 3))", "teacher.sum(dim=(2, 3))"),
        ("teacher.mean(dim=(2, 3))", "-teacher.mean(dim=(2, 3))"),
        ("self.adapter(layer).means(student)", "self.adapt(layer, student).sum(dim=(2, 3))"),
        ("self.adapter(layer).means(student)", "self.adapt(layer, student).square().mean(dim=(2, 3)).sqrt()"),
        ("self.adapter(layer).means(student)", "student.mean(dim=(2, 3))"),
        ("F.mse_loss(", "F.l1_loss("),
        (", target)", ", target, reduction='sum')"),
    ),
    *of(
        "Adapter",
        ("by_map = 3 * batch * positions * wide", "by_map = 0 * batch * positions * wide"),
        ("by_map = 3 * batch * positions * (wide", "by_map = 0 * batch * positions * (wide"),
        ("by_moments = 2 * batch", "by_moments = 9 * batch"),
        ("by_moments = batch * (2", "by_moments = batch * (9"),
        ("scatter.sum(dim=0)", "scatter.mean(dim=0)"),
        ("alpha=positions", "alpha=1"),
        ("affine.means[:, :, None], affine.means[:, None]", "affine.means[:, :, None], affine.means[:, None].abs()"),
        ("scatter / (len(means) * positions)", "scatter / positions"),
        ("positions) + around", "positions) - around"),
        ("around.mT @ around / len(means)", "around.mT @ around / len(means) / positions"),
        ("around.mT @ around", "means.mT @ means"),
        (".sum(dim=1).clamp_min(0)", ".sum(dim=1)"),
        ("self._track(weight @ centre", "self._track(-weight @ centre"),
        ("count / (count - 1)", "1"),
        ("running_mean.lerp_(mean", "running_mean.lerp_(2 * mean"),
        ("num_batches.add_(1)", "num_batches.add_(2)"),
        ("1 / float(num_batches)", "1.0"),
        ("(norm.weight * torch.rsqrt", "(torch.rsqrt"),
        ("rsqrt(variance + norm.eps))[", "rsqrt(variance))["),
        ("rsqrt(variance + norm.eps))[", "reciprocal(variance + norm.eps))["),
        ("rsqrt(variance + norm.eps))[", "rsqrt(variance.detach() + norm.eps))["),
        ("rsqrt(variance + norm.eps) * (", "rsqrt(variance) * ("),
        ("around @ folded.mT + mean", "around @ folded.mT"),
        ("Tensor = norm.bias", "Tensor = 0 * norm.bias"),
        ("mean = norm.bias + norm", "mean = norm"),
        ("around @ folded.mT", "means @ folded.mT"),
        ("norm.bias + norm.weight", "norm.bias - norm.weight"),
        ("@ centre - running_mean", "@ centre + running_mean"),
        ("norm.running_mean, norm.running_var,", "norm.running_var, norm.running_mean,"),
    ),
    *of(
        "Adapter",
        ("features.flatten(2).mT - means[:, None]", "features.flatten(2).mT"),
        ("by_means / features[0, 0].numel()", "by_means"),
        ("- slope_at_means", "+ slope_at_means"),
        ("(means[:, None] @ slope)[:, 0]", "0 * means"),
        ("_shift(features, by_means, means @ slope)", "_shift(features, by_means, 0 * means)"),
        ("by_scatter + by_scatter.mT  # [batch, channel, channel]", "2 * by_scatter"),
        ("by_scatter + by_scatter.mT  # [channel, channel]", "by_scatter"),
        ("torch.baddbmm(shift[:, None]", "torch.baddbmm(-shift[:, None]"),
        ("torch.baddbmm(shift[:, :, None]", "torch.baddbmm(-shift[:, :, None]"),
        ("columns.mT, slope)", "columns.mT, -slope)"),
        ("slope, columns)", "-slope, columns)"),
        base=MOMENTS,
    ),
    *of(
        "Single",
        ("losses.paths, self.weight", "losses.paths, -self.weight"),
        ("losses.paths, self.weight", "losses.paths, 1.0"),
        ("weight: float = 1.0", "weight: float = 0.1"),
        ("num_keys != 1", "num_keys < 1"),
    ),
    *of(
        "Equal",
        ("losses.paths, self.alpha_distill", "losses.paths, -self.alpha_distill"),
        ("losses.paths, self.alpha_distill", "losses.paths, self.alpha_distill / len(losses.paths)"),
        ("losses.paths, self.alpha_distill", "losses.paths, 1.0"),
        ("alpha_distill: float = 1.0", "alpha_distill: float = 0.5"),
    ),
    *of(
        "Equal",
        ("losses.task + (weights", "losses.task - (weights"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths).mean()"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths.abs().sqrt()).sum()"),
        ("losses.task + (weights", "losses.task.detach() + (weights"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths.detach()).sum()"),
        base=AGGREGATORS,
    ),
    *of(
        "Fixed",
        ("[self.weights[key] for key in self.keys]", "[*self.weights.values()]"),
        ("[self.weights[key] for key in self.keys]", "[-self.weights[key] for key in self.keys]"),
        ("weighted_sum(losses, self.values)", "weighted_sum(losses, self.values / self.values.sum())"),
    ),
    *of(
        "Adaptive",
        ("torch.exp(-self.a)", "torch.exp(self.a)"),
        ("self.alpha_distill * torch.exp", "torch.exp"),
        ("+ self.alpha_distill * self.a.sum()", "- self.alpha_distill * self.a.sum()"),
        ("+ self.alpha_distill * self.a.sum()", "+ self.a.sum()"),
        ("self.a.sum()", "self.a.mean()"),
        ("self.a.sum()", "self.a.abs().sum()"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths).mean()"),
        ("(weights * losses.paths).sum()", "(weights.detach() * losses.paths).sum()"),
        ("losses.task + (", "losses.task - ("),
        ("clamp_(min=", "clamp_(max="),
        ("math.log(self.alpha_distill / weight)", "math.log(1 / weight)"),
        ("torch.full((num_keys,), self.initial)", "torch.zeros(num_keys)"),
        ("weight_decay: float | None = 0.0", "weight_decay: float | None = None"),
        ('"lr": self.learning_rate', '"lr": None'),
    ),
    *of(
        "AdaptivePaper",
        ("weight_decay=None, max_weight=None", "weight_decay=0.0, max_weight=None"),
        ("weight_decay=None, max_weight=None", "weight_decay=None, max_weight=LARGE_WEIGHT"),
        ("learning_rate=None, weight_decay=None", "learning_rate=0.1, weight_decay=None"),
        ("Adaptive(granularity, learning_rate=None", "Adaptive(granularity, initial=1.0, learning_rate=None"),
    ),
    *of(
        "LogSum",
        ("distributed.mean(losses.paths)", "losses.paths.detach()"),
        ("+ self.epsilon", "- self.epsilon"),
        ("self.alpha_distill / mean", "self.alpha_distill * mean"),
        ("self.alpha_distill / mean", "1 / mean"),
        ("mean.log().sum()", "mean.log().mean()"),
        ("mean.log().sum()", "-mean.log().sum()"),
        ("mean.log().sum()", "mean.sum()"),
        ("self.alpha_distill * mean.log()", "mean.log()"),
        ("(weights * losses.paths).sum()", "(weights * losses.paths).mean()"),
        ("(descended - descended.detach())", "(descended.detach() - descended)"),
        ("(descended - descended.detach())", "descended"),
    ),
]


def execute(module: ModuleType, old: str = "", new: str = "") -> ModuleType:
    """Execute the source of `module` once more, changed, without touching the imported one."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    if old and source.count(old) != 1:
        pytest.fail(f"{module.__name__} holds {old!r} {source.count(old)} times, not once: update this table")
    changed = ModuleType(module.__name__)
    changed.__file__ = module.__file__
    exec(compile(source.replace(old, new) if old else source, f"mutant of {module.__name__}", "exec"), vars(changed))
    return changed


def build(name: str, old: str = "", new: str = "", *, base: str = "") -> Any:
    """Return `name` made from changed source."""
    family = FAMILIES[name]
    own = sys.modules[getattr(family, name).__module__]
    if not base:
        return getattr(execute(own, old, new), name)
    with mock.patch.dict(sys.modules, {base: execute(importlib.import_module(base), old, new)}):
        return getattr(execute(own), name)


def failed_goldens(name: str, changed: Any) -> list[str]:
    """Return the golden values that do not hold for `changed`; anything but a wrong value is an error."""
    tests = importlib.import_module(f"test_{getattr(FAMILIES[name], name).__module__.rpartition('.')[2]}")
    failed = []
    for golden in tests.GOLDENS[name]:
        try:
            golden(changed)
        except AssertionError:
            failed.append(golden.__name__)
    return failed


@pytest.mark.parametrize(
    ("name", "base"),
    [*((name, "") for name in FAMILIES), *sorted({(each.name, each.base) for each in MUTANTS if each.base})],
)
def test_unchanged_source_passes(name: str, base: str) -> None:
    assert failed_goldens(name, build(name, base=base)) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_fails(mutant: Mutant) -> None:
    changed = build(mutant.name, mutant.old, mutant.new, base=mutant.base)
    assert failed_goldens(mutant.name, changed), "no golden value notices: add one that does"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_everything_registered_has_mutants(name: str) -> None:
    found = sum(mutant.name == name and not mutant.base for mutant in MUTANTS)
    assert found >= 3, f"add mutants of {name} to MUTANTS: flip a sign, a norm and a reduction"
