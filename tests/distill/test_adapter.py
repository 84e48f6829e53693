"""The adapter by moments against the adapter by maps: values, gradients and running statistics."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from distill.adapter import Adapter
from distill.moments import pooled_moments, sample_moments


def by_map_means(adapter: Adapter, features: Tensor) -> Tensor:
    return Adapter.forward(adapter, features).mean(dim=(2, 3))


def by_map_gram(adapter: Adapter, features: Tensor) -> Tensor:
    rows = Adapter.forward(adapter, features).flatten(2)
    return rows @ rows.mT


METHODS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "means": (Adapter.means, by_map_means),
    "gram": (Adapter.gram, by_map_gram),
}
both = pytest.mark.parametrize("method", METHODS)

SHAPES = {  # batch, channels in, channels out, height, width: all of them cheaper by moments
    "wider teacher": (5, 3, 4, 6, 5),
    "many channels": (4, 6, 20, 5, 8),
    "one sample": (1, 3, 8, 5, 4),
    "equal width": (6, 4, 4, 5, 5),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
modes = pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "nhwc"])


def without_map(cls: type[Adapter]) -> type[Adapter]:
    """Return the adapter with its map out of bounds, so that nothing but the moments can answer."""

    class WithoutMap(cls):  # type: ignore[misc, valid-type]
        def forward(self, features: Tensor) -> Tensor:
            raise AssertionError("formed the map")

    return WithoutMap


def make(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, kind: type[Adapter] | None = None) -> Any:
    generator = torch.Generator().manual_seed(1)
    batch, wide, out, height, width = shape
    adapter = (kind or without_map(Adapter))(wide, out)
    for value in [*adapter.parameters(), *adapter.norm.buffers()]:
        if value.is_floating_point():  # BatchNorm starts as 1 and 0: would hide that they are used
            value.data += 0.3 * torch.rand(value.shape, generator=generator)
    features = torch.randn(batch, wide, height, width, generator=generator, dtype=torch.float64).relu() + 0.5
    return adapter.to(dtype), features.to(dtype)


def outcome(compute: Callable[..., Tensor], adapter: Adapter, features: Tensor) -> dict[str, Tensor]:
    """Return value, gradients and running statistics of two calls."""
    adapter = copy.deepcopy(adapter)
    features = features.clone(memory_format=torch.preserve_format).requires_grad_()
    weights = torch.randn(compute(adapter, features).shape, generator=torch.Generator().manual_seed(2)).to(features)
    value = compute(adapter, features)
    (value * weights).sum().backward()
    found = {"value": value.detach(), "by features": features.grad}
    found |= {f"by {name}": parameter.grad for name, parameter in adapter.named_parameters()}
    return found | dict(adapter.named_buffers())


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-10, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
        )


def golden_training(cls: type[Adapter]) -> None:
    # One channel; the samples' values (2, 4) and (0, -2), each twice: mean 1, centred (1, 3) and (-1, -3), variance 5.
    # Convolution (1, -2): variances 5 and 20; BatchNorm's weight is their root, so it leaves y1 = x - 1 and
    # y2 = -2 (x - 1); bias (1, 2): y1 = (2, 4) and (0, -2), y2 = (0, -4) and (4, 8).
    adapter, features = two_samples(cls)
    adapter.norm.weight.data = torch.tensor([5.0, 20.0]).double().sqrt()
    means, grams = adapter.means(features), adapter.gram(features)
    torch.testing.assert_close(means, torch.tensor([[3.0, -2.0], [-1.0, 6.0]]).double())
    wanted = torch.tensor([[[40.0, -32.0], [-32.0, 32.0]], [[8.0, -32.0], [-32.0, 160.0]]])
    torch.testing.assert_close(grams, wanted.double())
    # Running statistics after two calls at momentum 1/2, then 1/2 of 8/7 of the variance.
    torch.testing.assert_close(adapter.norm.running_mean, torch.tensor([0.75, -1.5]).double())
    wanted = 0.25 + 0.75 * 8 / 7 * torch.tensor([5.0, 20.0]).double()
    torch.testing.assert_close(adapter.norm.running_var, wanted)
    assert int(adapter.norm.num_batches_tracked) == 2


def golden_evaluation(cls: type[Adapter]) -> None:
    # Running means (3, 0) and variances (4, 25) with weight (2, 5) and bias (1, 2): y1 = x - 2 = (0, 2) and (-2, -4),
    # y2 = -2 x + 2 = (-2, -6) and (2, 6).
    adapter, features = two_samples(cls)
    adapter.eval()
    adapter.norm.weight.data = torch.tensor([2.0, 5.0]).double()
    adapter.norm.running_mean = torch.tensor([3.0, 0.0]).double()
    adapter.norm.running_var = torch.tensor([4.0, 25.0]).double()
    torch.testing.assert_close(adapter.means(features), torch.tensor([[1.0, -4.0], [-3.0, 4.0]]).double())
    wanted = torch.tensor([[[8.0, -24.0], [-24.0, 80.0]], [[40.0, -56.0], [-56.0, 80.0]]])
    torch.testing.assert_close(adapter.gram(features), wanted.double())
    assert int(adapter.norm.num_batches_tracked) == 0


def golden_cumulative_mean(cls: type[Adapter]) -> None:
    # Without momentum the running mean is the mean of all batches: of 1 and 3 it is 2.
    adapter, features = two_samples(cls)
    adapter.norm.momentum = None
    adapter.gram(features)
    adapter.gram(features + 2)
    torch.testing.assert_close(adapter.norm.running_mean, torch.tensor([2.0, -4.0]).double())


def golden_variance_below_zero_by_rounding(cls: type[Adapter]) -> None:
    # Equal channels under weights that sum to zero: what rounding leaves of the variance must not be negative.
    features = 1e6 * torch.randn(4, 1, 5, 8, generator=torch.Generator().manual_seed(0)).expand(4, 3, 5, 8)
    adapter = cls(3, 64)
    weight = torch.randn(64, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    adapter.convolution.weight.data = weight - weight.mean(dim=1, keepdim=True)
    assert torch.isfinite(adapter.gram(features)).all()


def golden_gradients(cls: type[Adapter]) -> None:
    for training, (by_moments, by_map) in itertools.product((True, False), METHODS.values()):
        for layout in (torch.contiguous_format, torch.channels_last):
            adapter, features = make(SHAPES["wider teacher"], kind=without_map(cls))
            adapter.train(training)
            features = features.contiguous(memory_format=layout)
            found = outcome(getattr(cls, by_moments.__name__), adapter, features)
            assert_equal(found, outcome(by_map, adapter, features))


GOLDENS = {
    "Adapter": (
        golden_training,
        golden_evaluation,
        golden_cumulative_mean,
        golden_variance_below_zero_by_rounding,
        golden_gradients,
    )
}


def two_samples(cls: type[Adapter]) -> tuple[Adapter, Tensor]:
    adapter = without_map(cls)(1, 2).double()
    adapter.convolution.weight.data = torch.tensor([1.0, -2.0]).double().reshape(2, 1, 1, 1)
    adapter.norm.bias.data = torch.tensor([1.0, 2.0]).double()
    adapter.norm.eps, adapter.norm.momentum = 0.0, 0.5
    features = torch.tensor([[[[2.0, 4.0], [2.0, 4.0]]], [[[0.0, -2.0], [0.0, -2.0]]]])
    return adapter, features.double()


@pytest.mark.parametrize("golden", GOLDENS["Adapter"])
def test_golden_value(golden):
    golden(Adapter)


@both
@shapes
@modes
@layouts
def test_moments_agree_with_the_map(method, shape, training, layout):
    adapter, features = make(shape)
    adapter.train(training)
    features = features.contiguous(memory_format=layout)
    by_moments, by_map = METHODS[method]
    found = outcome(by_moments, adapter, features)
    assert_equal(found, outcome(by_map, adapter, features))
    assert found["by features"].stride()[1:] == features.stride()[1:], "the gradient keeps the map's layout"
    assert int(found["norm.num_batches_tracked"]) == (2 if training else 0)


@both
@pytest.mark.parametrize("momentum", [None, 0.0, 0.7, 1.0])
def test_running_statistics_at_any_momentum(method, momentum):
    adapter, features = make(SHAPES["wider teacher"])
    adapter.norm.momentum = momentum
    by_moments, by_map = METHODS[method]
    assert_equal(outcome(by_moments, adapter, features), outcome(by_map, adapter, features))


@both
@modes
@layouts
def test_gradient_agrees_with_finite_differences(method, training, layout):
    adapter, features = make((3, 2, 3, 3, 4))
    adapter.train(training)
    names = [name for name, _ in adapter.named_parameters()]

    def compute(features: Tensor, *values: Tensor) -> Tensor:
        settings = dict(zip(names, values, strict=True))
        return torch.func.functional_call(_Call(adapter, METHODS[method][0]), _under(settings), features)

    inputs = (features.contiguous(memory_format=layout), *(value.detach() for value in adapter.parameters()))
    assert torch.autograd.gradcheck(compute, [value.requires_grad_() for value in inputs])


class _Call(nn.Module):
    def __init__(self, adapter: Adapter, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.adapter, self._compute = adapter, compute

    def forward(self, features: Tensor) -> Tensor:
        return self._compute(self.adapter, features)


def _under(settings: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"adapter.{name}": value for name, value in settings.items()}


@both
@layouts
@pytest.mark.parametrize("kind", ["zero", "constant", "huge", "large mean", "tiny", "sparse"])
def test_value_and_gradient_stay_finite(method, layout, kind):
    adapter, features = make(SHAPES["many channels"], torch.float32)
    features = {
        "zero": torch.zeros_like(features),
        "constant": torch.full_like(features, 3.3e4),
        "huge": 1e6 * features,
        "large mean": features + 1e5,
        "tiny": 1e-20 * features,
        "sparse": features * (torch.arange(features.numel()).reshape(features.shape) == 7),
    }[kind].contiguous(memory_format=layout)
    for name, value in outcome(METHODS[method][0], adapter, features).items():
        assert torch.isfinite(value).all(), name


@both
def test_a_large_mean_costs_no_more_digits_than_by_the_map(method):
    adapter, features = make(SHAPES["many channels"], torch.float32)
    features = features + 300  # mean 300, deviation about .6: squares of it would leave no digit of the variance
    exact = outcome(METHODS[method][1], copy.deepcopy(adapter).double(), features.double())
    del exact["norm.num_batches_tracked"]
    wrong = [
        {name: float((found[name].double() - value).norm() / value.norm()) for name, value in exact.items()}
        for found in (outcome(compute, adapter, features) for compute in METHODS[method])
    ]
    for name in exact:
        assert wrong[0][name] <= max(10 * wrong[1][name], 1e-5), (name, wrong[0][name], wrong[1][name])


@both
def test_batchnorm_that_sees_other_ranks_too_gets_the_map(method):
    adapter, features = make(SHAPES["many channels"])
    adapter = nn.SyncBatchNorm.convert_sync_batchnorm(adapter)
    with pytest.raises(AssertionError, match="formed the map"):
        METHODS[method][0](adapter, features)


@both
@pytest.mark.parametrize("shape", [(4, 20, 3, 5, 5), (4, 4, 30, 1, 1)], ids=["wider student", "one position"])
def test_where_the_map_costs_less_it_is_formed(method, shape):
    adapter, features = make(shape)
    with pytest.raises(AssertionError, match="formed the map"):
        METHODS[method][0](adapter, features)
    adapter, features = make(shape, kind=Adapter)
    by_moments, by_map = METHODS[method]
    assert_equal(outcome(by_moments, adapter, features), outcome(by_map, adapter, features))


@both
def test_a_single_value_a_channel_is_refused_as_by_batchnorm(method):
    adapter, features = make((1, 2, 9, 1, 1), kind=Adapter)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        METHODS[method][0](adapter, features)


def test_pooled_moments_are_the_sum_of_the_samples():
    features = torch.randn(3, 4, 2, 5, dtype=torch.float64)
    means, scatter = sample_moments(features)
    pooled_means, pooled = pooled_moments(features)
    torch.testing.assert_close(pooled_means, means)
    torch.testing.assert_close(pooled, scatter.sum(dim=0))


@layouts
def test_one_pass_over_the_map_leaves_nothing_of_its_size_behind(layout):
    """Nothing but the map itself is kept for backward: it lives in the student anyway."""
    _, features = make((8, 4, 9, 8, 8))
    features = features.contiguous(memory_format=layout).requires_grad_()
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        for moments in (sample_moments, pooled_moments):
            moments(features)
    large = [tensor for tensor in kept if tensor.numel() >= features.numel()]
    assert len(large) == 2
    assert all(tensor.data_ptr() == features.data_ptr() for tensor in large)


MUTANTS = {
    "Adapter": [
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
        ("features.flatten(2).mT - means[:, None]", "features.flatten(2).mT", "distill.moments"),
        ("by_means / features[0, 0].numel()", "by_means", "distill.moments"),
        ("- slope_at_means", "+ slope_at_means", "distill.moments"),
        ("(means[:, None] @ slope)[:, 0]", "0 * means", "distill.moments"),
        ("_shift(features, by_means, means @ slope)", "_shift(features, by_means, 0 * means)", "distill.moments"),
        ("by_scatter + by_scatter.mT  # [batch, channel, channel]", "2 * by_scatter", "distill.moments"),
        ("by_scatter + by_scatter.mT  # [channel, channel]", "by_scatter", "distill.moments"),
        ("torch.baddbmm(shift[:, None]", "torch.baddbmm(-shift[:, None]", "distill.moments"),
        ("torch.baddbmm(shift[:, :, None]", "torch.baddbmm(-shift[:, :, None]", "distill.moments"),
        ("columns.mT, slope)", "columns.mT, -slope)", "distill.moments"),
        ("slope, columns)", "-slope, columns)", "distill.moments"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
