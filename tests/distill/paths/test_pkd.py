from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_maps import flat, pooled_alike, samples
from path_cases import batch_of, connect, make_case
from torch import Tensor, nn

from distill import distributed
from distill.paths import PKD, Path
from distill.paths.base import key


def golden_correlation_over_the_batch(cls: type[Path]) -> None:
    # Two samples of two positions.  Student 1, 2 and 3, 4: centred -1.5, -.5, .5, 1.5, variance 1.25.
    # Teacher 10, 30 and 20, 40: the same but for scale and shift, the middle two exchanged: covariance with the centred
    # student (2.25 - .25 - .25 + 2.25) / 4 = 1 of 1.25: r = .8, loss .2.  (Sample by sample it would be r = 1.)
    student = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]])
    teacher = torch.tensor([[[[10.0, 30.0]]], [[[20.0, 40.0]]]])
    path = connect(cls(), [(1, 1, 2)], [(1, 1, 2)])
    target = path.target({"t0": teacher})
    torch.testing.assert_close(target["s0"], teacher)
    torch.testing.assert_close(path({"s0": student}, target, batch_of(2))["s0"], torch.tensor(0.2))


def golden_channel_by_channel(cls: type[Path]) -> None:
    # First channel: alike but for scale and shift, r = 1.  Second: contrary, r = -1, loss 2.  Mean over channels 1.
    # Rows of the map are positions too: 1, 2, 3, 5.
    values = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    student = torch.stack([values, values])[None]
    teacher = torch.stack([3 * values - 7, 4 - values])[None]
    path = connect(cls(), [(2, 2, 2)], [(2, 2, 2)])
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(1.0))


def golden_between_the_samples_alone(cls: type[Path]) -> None:
    # One position, so that nothing varies within a sample.  Student 1, 2, 3, teacher 1, 3, 2:
    # centred -1, 0, 1 and -1, 1, 0: covariance 1/3 of 2/3: r = 1/2.
    student, teacher = (torch.tensor(values).reshape(3, 1, 1, 1) for values in ([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]))
    path = connect(cls(), [(1, 1, 1)], [(1, 1, 1)])
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(3))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.5))


def golden_almost_constant(cls: type[Path]) -> None:
    # Student 1e-6, -1e-6: variance 1e-12, doubled by the 1e-12: standardised to 1 / sqrt 2 and its negative.  Teacher
    # 1, -1 stays.  (1 - 1 / sqrt 2)^2 / 2.  Exchanged the same.
    weak, strong = (torch.tensor([[[[value, -value]]]], dtype=torch.float64) for value in (1e-6, 1.0))
    path = connect(cls(), [(1, 1, 2)], [(1, 1, 2)])
    for student, teacher in ((weak, strong), (strong, weak)):
        loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(1))["s0"]
        assert loss.item() == pytest.approx((1 - 1 / math.sqrt(2)) ** 2 / 2, rel=1e-9)


def golden_adapter_where_widths_differ(cls: type[Path]) -> None:
    # One student channel 0, 1, adapted to itself and its negative; teacher 0, 1 twice: r = 1 and r = -1: mean 1.
    path = connect(cls(), [(1, 1, 2)], [(2, 1, 2)])
    (weight,) = path.parameters()
    weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    features = torch.tensor([[[[0.0, 1.0]]]])
    loss = path({"s0": features}, path.target({"t0": features.repeat(1, 2, 1, 1)}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(1.0))


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # Columns of the larger map, averaged: 1, 2, 3; the smaller one 1, 3, 2: r = 1/2.  (By maximum: 2, 4, 3: r = 1.)
    small, large = torch.tensor([[[[1.0, 3.0, 2.0]]]]), torch.tensor([[[[0.0, 4.0, 3.0], [2.0, 0.0, 3.0]]]])
    path = connect(cls(), [(1, 1, 3)], [(1, 2, 3)])
    loss = path({"s0": small}, path.target({"t0": large}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.5))
    swapped = connect(cls(), [(1, 2, 3)], [(1, 1, 3)])
    loss = swapped({"s0": large}, swapped.target({"t0": small}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.5))


def golden_rounding_below_zero(cls: type[Path]) -> None:
    # A copy at another scale: what rounding leaves of 1 - r must not be negative.
    path = connect(cls(), [(1, 4, 4)], [(1, 4, 4)])
    for seed in range(50):
        features = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
        loss = path({"s0": (seed + 3) * features}, path.target({"t0": features}), batch_of(2))["s0"]
        assert 0 <= loss.item() < 1e-6


def golden_slope(cls: type[Path]) -> None:
    # The gradient along a direction is the difference of the loss at both sides, in either memory layout.
    generator = torch.Generator().manual_seed(0)
    student, teacher, direction = (torch.randn(3, 4, 2, 3, generator=generator).double() + 2 for _ in range(3))
    path = connect(cls(), [(4, 2, 3)], [(4, 2, 3)])
    target = path.target({"t0": teacher})
    ahead, behind = (
        path({"s0": student + step * direction}, target, batch_of(3))["s0"].item() for step in (1e-5, -1e-5)
    )
    for layout in (torch.contiguous_format, torch.channels_last):
        features = student.contiguous(memory_format=layout).requires_grad_()
        (slope,) = torch.autograd.grad(path({"s0": features}, target, batch_of(3))["s0"], [features])
        assert (slope * direction).sum().item() == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def golden_large_mean(cls: type[Path]) -> None:
    # A mean of 4096 beside differences of 1, exact in float32: squares of the raw values would leave no digit.
    # The student of the first golden value, shifted: .2.
    student = torch.tensor([[[[1.0, 2.0]]], [[[3.0, 4.0]]]]) + 4096
    teacher = torch.tensor([[[[10.0, 30.0]]], [[[20.0, 40.0]]]])
    path = connect(cls(), [(1, 1, 2)], [(1, 1, 2)])
    loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(2))["s0"]
    torch.testing.assert_close(loss, torch.tensor(0.2))


GOLDENS = {
    "PKD": (
        golden_correlation_over_the_batch,
        golden_channel_by_channel,
        golden_between_the_samples_alone,
        golden_almost_constant,
        golden_adapter_where_widths_differ,
        golden_pools_the_larger_map,
        golden_rounding_below_zero,
        golden_slope,
        golden_large_mean,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Channel by channel: standardise over all samples and positions, half the mean squared difference."""
    losses = {}
    for layer, pairs in samples(path, student, teacher).items():
        alike = [pooled_alike(*maps) for maps in pairs]
        own = [[flat(grid) for grid in one] for one, _ in alike]
        if key(layer) in path.adapters:
            weights = path.adapters[key(layer)].weight.double().flatten(1).tolist()
            own = [[[_sum(line, column) for column in zip(*maps, strict=True)] for line in weights] for maps in own]
        halves = []
        for channel in range(len(own[0])):
            s = _standard([value for maps in own for value in maps[channel]])
            t = _standard([value for _, maps in alike for value in flat(maps[channel])])
            halves.append(sum((a - b) ** 2 / 2 for a, b in zip(s, t, strict=True)) / len(s))
        losses[layer] = sum(halves) / len(halves)
    return losses


def _sum(weights: Any, values: Any) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def _standard(values: list[float]) -> list[float]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    return [(value - mean) / math.sqrt(variance + 1e-12) for value in values]


def test_scale_and_shift_of_a_channel_do_not_count() -> None:
    case = make_case("PKD", student=[(4, 3, 5)], teacher=[(4, 3, 5)])
    before = case.loss().item()
    scale = torch.tensor([0.1, 1.0, 30.0, 2.0], dtype=torch.float64)[:, None, None]
    case.student["s0"] = scale * case.student["s0"] - 5
    assert case.loss().item() == pytest.approx(before, rel=1e-9)


def test_it_is_one_less_the_correlation() -> None:
    case = make_case("PKD", student=[(4, 3, 5)], teacher=[(4, 3, 5)])
    rows = [side.transpose(0, 1).flatten(1) for side in (case.student["s0"], case.teacher["t0"])]
    wanted = [1 - torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in zip(*rows, strict=True)]
    assert case.loss().item() == pytest.approx(sum(wanted) / 4, rel=1e-9)


def test_adapters_are_convolutions_for_pairs_of_different_width_alone() -> None:
    path = connect(PKD(), [(3, 4, 4), (5, 2, 2)], [(3, 4, 4), (6, 2, 2)])
    assert list(path.adapters) == [key("s1")]
    assert type(path.adapters[key("s1")]) is nn.Conv2d


def test_two_workers_that_gather_have_the_loss_and_the_gradient_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case("PKD", batch_size=6)
    whole = _outcome(case.path, case.student, case.teacher)
    case.path.gather = True
    shares = [
        [{tap: value[part] for tap, value in side.items()} for side in (case.student, case.teacher)]
        for part in (slice(0, 3), slice(3, 6))
    ]
    # What each worker would send: the moments of its share, layer by layer.
    sent: list[list[Tensor]] = [[], []]
    for worker, share in enumerate(shares):
        monkeypatch.setattr(distributed, "gather_rows", lambda rows, to=sent[worker]: to.append(rows.detach()) or rows)
        _outcome(case.path, *share)
    assert all(rows.shape[:2] == (3, 5) for rows in sent[0])
    outcomes = []
    for worker, share in enumerate(shares):
        others = iter(sent[1 - worker])

        def gather(rows: Tensor, worker: int = worker, others: Any = others) -> Tensor:
            counted = rows.detach() + 2 * (rows - rows.detach())  # the contract of gather_rows: once for every worker
            return torch.cat([counted, next(others)] if worker == 0 else [next(others), counted])

        monkeypatch.setattr(distributed, "gather_rows", gather)
        outcomes.append(_outcome(case.path, *share))
    for found in outcomes:
        torch.testing.assert_close(found[0], whole[0])
    # Features: each worker has the gradients of its own samples, counted twice, of which data-parallel training halves
    # the sum over workers; parameters: the mean.
    for tap in ("s0", "s1"):
        torch.testing.assert_close(torch.cat([found[1][tap] for found in outcomes]) / 2, whole[1][tap])
    for one, other, wanted in zip(outcomes[0][2], outcomes[1][2], whole[2], strict=True):
        torch.testing.assert_close((one + other) / 2, wanted)


def _outcome(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> tuple[Tensor, Any, Any]:
    """Return the loss, its gradients by the student's features, and by the parameters."""
    features = {tap: value.detach().clone().requires_grad_() for tap, value in student.items() if tap}
    losses = path(features, path.target(teacher), batch_of(len(features["s0"])))
    loss = torch.stack(list(losses.values())).sum()
    found = torch.autograd.grad(loss, [*features.values(), *path.parameters()])
    return loss.detach(), dict(zip(features, found, strict=False)), found[len(features) :]


def test_without_gather_a_worker_looks_at_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "gather_rows", lambda rows: pytest.fail("asked the other workers"))
    make_case("PKD").loss()


MUTANTS = {
    "PKD": [
        ("EPSILON = 1e-12", "EPSILON = 1e-6"),
        ("(squares / 2 - both", "(squares - both"),
        ("(squares / 2 - both", "(squares / 2 + both"),
        (").mean().clamp_min(0)", ").sum().clamp_min(0)"),
        (").mean().clamp_min(0)", ").mean()"),
        ("(means - means.mean(dim=0))", "(0 * means)"),
        ("(means - means.mean(dim=0))", "means"),
        ("within.mean(dim=0) +", "within.sum(dim=0) +"),
        ("within.mean(dim=0) +", ""),
        ("torch.rsqrt(by_student + EPSILON)", "torch.rsqrt(by_student)"),
        ("torch.rsqrt(by_teacher + EPSILON)", "torch.rsqrt(by_teacher)"),
        ("own * own, other * other, own * other]", "own * own, other * other, own.abs() * other]"),
        ("own, other = student - means[0], teacher - means[1]", "own, other = student, teacher"),
        ("(own * other).sum", "(own * other.abs()).sum"),
        ("(own * other).sum", "(own * other).mean"),
        (".square() for maps in (own, other)]", " for maps in (own, other)]"),
        ("sums / own[0, 0].numel()", "sums"),
        ("gradients[0] / student[0, 0].numel()", "gradients[0]"),
        ("by_mean - 2 * by_variance", "-2 * by_variance"),
        ("shift, student, 2 * by_variance", "shift, student, by_variance"),
        ("- by_both * other_mean", "+ by_both * other_mean"),
        ("- 2 * by_variance * own_mean", "- by_variance * own_mean"),
        (", teacher, by_both)", ", teacher, -by_both)"),
        ("self.adapt(layer, student)", "student.expand_as(target)"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "distill.paths.sizes"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
