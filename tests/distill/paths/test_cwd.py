from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_maps import flat, naive_adapter, pooled_alike, samples
from path_cases import batch_of, connect, dense_loss_of, identity_adapters, join, make_case, make_probe, softmax
from torch import Tensor

from distill.adapter import Adapter
from distill.paths import CWD, Path
from distill.paths.base import key


def golden_two_positions(cls: type[Path]) -> None:
    # T = 4.  First sample, first channel: student (4 log 3, 0): q = (3/4, 1/4); teacher flat: p = (1/2, 1/2).
    # KL(p || q) = 1/2 log(2/3) + 1/2 log 2 = 1/2 log(4/3), times 16: 8 log(4/3).  Second channel equal but for a shift:
    # 0.  Mean over channels 4 log(4/3); second sample equal, 0: mean over the batch 2 log(4/3).
    student = torch.tensor([[[[4 * math.log(3), 0.0]], [[1.0, 2.0]]], [[[1.0, 1.0]], [[5.0, -1.0]]]])
    teacher = torch.tensor([[[[7.0, 7.0]], [[-3.0, -2.0]]], [[[1.0, 1.0]], [[5.0, -1.0]]]])
    path = connect(cls(), [(2, 1, 2)], [(2, 1, 2)])
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"], teacher)
    loss = path({"s0": student}, target, batch_of(2))["s0"]
    torch.testing.assert_close(loss, torch.tensor(2 * math.log(4 / 3)))


def golden_direction_and_temperature(cls: type[Path]) -> None:
    # T = 2.  Student flat, teacher (2 log 3, 0): p = (3/4, 1/4), q = (1/2, 1/2).
    # KL(p || q) = 3/4 log(3/2) + 1/4 log(1/2), times 4: 3 log(3/2) - log 2.  (The other direction: 2 log(4/3).)
    path = connect(cls(temperature=2.0), [(1, 2, 1)], [(1, 2, 1)])
    teacher = torch.tensor([[[[2 * math.log(3)], [0.0]]]])
    loss = path({"s0": torch.zeros(1, 1, 2, 1)}, path.target({"t0": teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(3 * math.log(1.5) - math.log(2)))


def golden_positions_of_a_plane(cls: type[Path]) -> None:
    # Four positions: p = (1/2, 1/4, 1/8, 1/8), q = 1/4 each: KL = log 4 - entropy = (2 - 1.75) log 2; times 16.
    shares = torch.tensor([[[[0.5, 0.25], [0.125, 0.125]]]])
    path = connect(cls(), [(1, 2, 2)], [(1, 2, 2)])
    loss = path({"s0": torch.ones(1, 1, 2, 2)}, path.target({"t0": 4 * shares.log()}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(4 * math.log(2)))


def golden_adapter_where_widths_differ(cls: type[Path]) -> None:
    # One student channel (4 log 3, 0), adapted to itself and its negative: q = (3/4, 1/4) and (1/4, 3/4).
    # Teacher p = (1/2, 1/2) and (1/4, 3/4): 8 log(4/3) and 0, mean 4 log(4/3).
    path = identity_adapters(connect(cls(), [(1, 1, 2)], [(2, 1, 2)]))
    (adapter,) = (module for module in path.modules() if isinstance(module, Adapter))
    adapter.convolution.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    features = torch.tensor([[[[4 * math.log(3), 0.0]]]])
    teacher = torch.tensor([[[[0.0, 0.0]], [[0.0, 4 * math.log(3)]]]])
    loss = path({"s0": features}, path.target({"t0": teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(4 * math.log(4 / 3)))


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # Teacher columns (0, 8 log 3) and (0, 0), averaged: (4 log 3, 0): p = (3/4, 1/4); student flat: T = 4 gives
    # 16 (3/4 log(3/2) - 1/4 log 2).  (By maximum, or after the softmax, p would be another.)
    small, large = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.0, 0.0], [8 * math.log(3), 0.0]]]])
    path = connect(cls(), [(1, 1, 2)], [(1, 2, 2)])
    loss = path({"s0": small}, path.target({"t0": large}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(12 * math.log(1.5) - 4 * math.log(2)))
    # The other way round: q = (3/4, 1/4), p flat: 8 log(4/3).
    swapped = connect(cls(), [(1, 2, 2)], [(1, 1, 2)])
    loss = swapped({"s0": large}, swapped.target({"t0": small}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(8 * math.log(4 / 3)))


def golden_shares_below_the_smallest_number(cls: type[Path]) -> None:
    # Student (0, 1000), T = 1: q1 = exp(-1000) is 0 in float32, its logarithm -1000.  Teacher flat:
    # KL = -log 2 + 1/2 * 1000 (and log q2 = 0).
    path = connect(cls(temperature=1.0), [(1, 1, 2)], [(1, 1, 2)])
    student = torch.tensor([[[[0.0, 1000.0]]]])
    loss = path({"s0": student}, path.target({"t0": torch.zeros(1, 1, 1, 2)}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(500 - math.log(2)))


def golden_deepest_features(cls: type[Path]) -> None:
    assert [pair.layer for pair in connect(cls(), [(1, 4, 4), (1, 2, 2)], [(1, 4, 4), (1, 2, 2)]).pairs] == ["s1"]


def golden_maps_of_classes(cls: type[Path]) -> None:
    # T = 4.  The first two classes of the first golden value's first sample, in a map and in a row: 8 log(4/3) and 0.
    student = torch.tensor([[[[4 * math.log(3)], [0.0]], [[1.0], [2.0]]]])
    teacher = torch.tensor([[[[7.0], [7.0]], [[-3.0], [-2.0]]]])
    found = dense_loss_of(join(cls(between="logits"), (2, 2, 1)), student, teacher)
    torch.testing.assert_close(found, torch.tensor(4 * math.log(4 / 3)))
    found = dense_loss_of(join(cls(between="logits"), (2, 2)), student[..., 0], teacher[..., 0])
    torch.testing.assert_close(found, torch.tensor(4 * math.log(4 / 3)))


GOLDENS = {
    "CWD": (
        golden_maps_of_classes,
        golden_two_positions,
        golden_direction_and_temperature,
        golden_positions_of_a_plane,
        golden_adapter_where_widths_differ,
        golden_pools_the_larger_map,
        golden_shares_below_the_smallest_number,
        golden_deepest_features,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Channel by channel: two distributions over positions, the sum of p log(p / q)."""
    losses = {}
    for layer, pairs in samples(path, student, teacher).items():
        alike = [pooled_alike(*maps) for maps in pairs]
        own, other = [one for one, _ in alike], [other for _, other in alike]
        if key(layer) in path.adapters:
            own = naive_adapter(path.adapters[key(layer)], torch.tensor(own, dtype=torch.float64))
        divergences = []
        for one, two in zip(own, other, strict=True):
            for s, t in zip(one, two, strict=True):
                q, p = (softmax([value / 4 for value in flat(grid)]) for grid in (s, t))
                divergences.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
        losses[layer] = 16 * sum(divergences) / len(divergences)
    return losses


def test_shift_does_not_count_and_scale_does() -> None:
    features = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = connect(CWD(), [(3, 4, 4)], [(3, 4, 4)])
    target = path.target({"t0": features})
    shift = torch.tensor([1.0, -2.0, 30.0], dtype=torch.float64)[:, None, None]
    assert path({"s0": features + shift}, target, batch_of(2))["s0"].item() == pytest.approx(0, abs=1e-14)
    assert path({"s0": 2 * features}, target, batch_of(2))["s0"] > 1e-2


def test_adapters_are_built_for_pairs_of_different_width_alone() -> None:
    path = connect(
        CWD(taps=[{"student": "s0", "teacher": "t0"}, {"student": "s1", "teacher": "t1"}]),
        [(3, 4, 4), (5, 2, 2)],
        [(3, 4, 4), (6, 2, 2)],
    )
    assert list(path.adapters) == [key("s1")]


@pytest.mark.parametrize("shape", [(4, 4), (4, 7)], ids=["equal widths", "adapter"])
def test_gradient_of_a_hot_teacher_is_the_difference_of_shares(shape: tuple[int, int]) -> None:
    """As the temperature rises the loss tends to half the centred squared difference a channel."""
    wide, out = shape
    case = make_case("CWD", student=[(wide, 3, 3)], teacher=[(out, 3, 3)])
    case.path.temperature = 1e4
    adapted = case.path.adapt("s0", case.student["s0"])
    gap = (adapted - case.teacher["t0"]).flatten(2)
    gap = gap - gap.mean(dim=2, keepdim=True)
    assert case.loss().item() == pytest.approx((gap.square().mean(dim=2) / 2).mean().item(), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan, "4", True])
def test_temperature_out_of_bounds_is_refused(temperature: Any) -> None:
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, found"):
        CWD(temperature=temperature)


@pytest.mark.parametrize("independent", [False, True])
def test_between_logits_it_learns_nothing_and_asks_no_feature(independent: bool) -> None:
    path = join(CWD(between="logits"), (4, 2, 3), independent=independent)
    assert list(path.parameters()) == []
    assert [(pair.student, pair.teacher, pair.layer) for pair in path.pairs] == [("", "", "logits")]


def test_options_between_logits() -> None:
    with pytest.raises(ValueError, match="between must be one of features, logits, found 'maps'"):
        CWD(between="maps")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="taps name features, but between is logits"):
        CWD(taps=[{"student": "s0", "teacher": "t0"}], between="logits")
    with pytest.raises(ValueError, match=r"CWD between logits needs an answer at each of many places.*logits \[4\]"):
        join(CWD(between="logits"), (4,))
    sides = [make_probe(side, [(1, 1, 1)], places=places) for side, places in (("s", (2, 3)), ("t", (4, 6)))]
    with pytest.raises(ValueError, match="CWD compares logits of equal shape"):
        CWD(between="logits").connect(*sides)


MUTANTS = {
    "CWD": [
        ("temperature: float = 4.0", "temperature: float = 1.0"),
        ("self.temperature**2 *", "self.temperature *"),
        (") / self.temperature, dim=1)", "), dim=1)"),
        ("divergence(log_p, log_q)", "divergence(log_q, log_p)"),
        ("mean_divergence(log_p, log_q)", "mean_divergence(log_p, log_q) / target[0, 0].numel()"),
        ("self.adapt(layer, student)", "student.expand_as(target)"),
        ("maps.flatten(2).flatten(0, 1)", "maps.flatten(2).mT.flatten(0, 1)"),
        ("maps.flatten(2).flatten(0, 1)", "maps.flatten(0, 2)"),
        ("maps.flatten(2).flatten(0, 1)", "maps.flatten(1)"),
        ("return F.log_softmax(maps.flatten(2).flatten(0, 1) / self.temperature, dim=1)",
         "return F.softmax(maps.flatten(2).flatten(0, 1) / self.temperature, dim=1).log()"),
        ("only_last = True", "only_last = False"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "distill.paths.sizes"),
        ("_parts(teacher, student).sum() / count", "_parts(teacher, student).sum()", "distill.paths.softened"),
        ("_parts(teacher, student).sum() / count", "_parts(teacher, student).mean()", "distill.paths.softened"),
    ],
}  # fmt: skip
"""Changes of the source that a golden value notices; see test_mutants."""
