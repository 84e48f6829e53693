from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from naive_maps import dot, flat, pooled_alike, samples
from path_cases import batch_of, connect, make_case
from torch import Tensor

from distill.paths import CWD, PKD, NSTPolynomial, Path
from distill.paths import nst_polynomial as module
from distill.targets import path_column


def loss_of(cls: type[Path], student: Any, teacher: Any) -> Tensor:
    """Return the loss between maps given as `[channel][position]` of one sample."""
    one, other = (torch.as_tensor(rows, dtype=torch.float64)[None, :, None] for rows in (student, teacher))
    path = connect(cls(), [tuple(one.shape[1:])], [tuple(other.shape[1:])])
    return path({"s0": one}, path.target({"t0": other}), batch_of(1))["s0"]


def golden_by_positions(cls: type[Path]) -> None:
    # Student rows (3, 4) -> (.6, .8) and (-2, 0) -> (-1, 0), teacher rows (1, 0) and (0, 1).
    # k(s, s): 1, .36, .36, 1, mean .68.  k(t, t): 1, 0, 0, 1, mean .5.  k(s, t): .36, .64, 1, 0, mean .5.
    # .68 + .5 - 2 * .5 = .18.
    loss = loss_of(cls, [[3.0, 4.0], [-2.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]])
    assert loss.item() == pytest.approx(0.18, rel=1e-12)


def golden_by_channels(cls: type[Path]) -> None:
    # The same rows among ten positions, of which the others are silent in all channels.
    rest = [0.0] * 8
    loss = loss_of(cls, [[3.0, 4.0, *rest], [-2.0, 0.0, *rest]], [[1.0, 0.0, *rest], [0.0, 2.0, *rest]])
    assert loss.item() == pytest.approx(0.18, rel=1e-12)


def golden_widths_differ(cls: type[Path]) -> None:
    # One student row (.6, .8): k(s, s) 1.  Teacher rows (1, 0) and (0, 1): k(t, t), mean .5.  k(s, t): .36, .64, mean
    # .5. 1 + .5 - 2 * .5 = .5, in either form.
    for rest in ([], [0.0] * 8):
        loss = loss_of(cls, [[3.0, 4.0, *rest]], [[1.0, 0.0, *rest], [0.0, 2.0, *rest]])
        assert loss.item() == pytest.approx(0.5, rel=1e-12)


def golden_batch(cls: type[Path]) -> None:
    # A sample of .18 and one whose channels have changed places: mean .09, in either form.
    for silent in (0, 8):
        student = torch.tensor([[[3.0, 4.0], [-2.0, 0.0]], [[0.0, 1.0], [5.0, 0.0]]])
        teacher = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 1.0]]])
        one, other = (torch.nn.functional.pad(rows, (0, silent))[:, :, None] for rows in (student, teacher))
        path = connect(cls(), [(2, 1, 2 + silent)], [(2, 1, 2 + silent)])
        loss = path({"s0": one}, path.target({"t0": other}), batch_of(2))["s0"]
        torch.testing.assert_close(loss, torch.tensor(0.09))


def golden_silent_channel(cls: type[Path]) -> None:
    # A row (3e-7, 4e-7) is divided by 1e-6: (.3, .4), of length .5; beside it (1, 0), and in the teacher (1, 0) twice.
    # k(s, s): .0625, .09, .09, 1, mean .310625.  k(t, t): 1.  k(s, t): .09, .09, 1, 1, mean .545.
    # .310625 + 1 - 1.09 = .220625, in either form.
    for rest in ([], [0.0] * 8):
        loss = loss_of(cls, [[3e-7, 4e-7, *rest], [1.0, 0.0, *rest]], [[1.0, 0.0, *rest], [1.0, 0.0, *rest]])
        assert loss.item() == pytest.approx(0.220625, rel=1e-12)


def golden_pools_before_normalising(cls: type[Path]) -> None:
    # Teacher [[1, 5], [7, 1]], columns averaged: (4, 3) -> (.8, .6); student (0, 2) -> (0, 1).  1 + 1 - 2 * .36 = 1.28.
    # (Normalising first: teacher (8, 6) / sqrt(76) / 2.  Maximum: (7, 5).)
    small, large = torch.tensor([[[[0.0, 2.0]]]]), torch.tensor([[[[1.0, 5.0], [7.0, 1.0]]]])
    path = connect(cls(), [(1, 1, 2)], [(1, 2, 2)])
    loss = path({"s0": small}, path.target({"t0": large}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(1.28))
    swapped = connect(cls(), [(1, 2, 2)], [(1, 1, 2)])
    loss = swapped({"s0": large}, swapped.target({"t0": small}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(1.28))


def golden_rounding_below_zero(cls: type[Path]) -> None:
    # Nearly equal features: the three terms by channels cancel, and what rounding leaves must not become negative.
    features = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    path = connect(cls(), [(3, 8, 8)], [(3, 8, 8)])
    for turn in range(50):
        nearly = features + 1e-5 * turn * features.roll(turn, dims=3)
        loss = path({"s0": nearly}, path.target({"t0": features}), batch_of(1))["s0"]
        assert 0 <= loss.item() < 1e-6


def golden_slope(cls: type[Path]) -> None:
    # The gradient along a direction is the difference of the loss at both sides, in both forms and memory layouts.
    generator = torch.Generator().manual_seed(0)
    for wide, out, height in ((8, 6, 2), (3, 2, 6)):
        student, direction = (torch.randn(2, wide, height, 3, generator=generator).double() for _ in range(2))
        teacher = torch.randn(2, out, height, 3, generator=generator).double()
        path = connect(cls(), [(wide, height, 3)], [(out, height, 3)])
        target = path.target({"t0": teacher})
        ahead, behind = (
            path({"s0": student + step * direction}, target, batch_of(2))["s0"].item() for step in (1e-5, -1e-5)
        )
        for layout in (torch.contiguous_format, torch.channels_last):
            features = student.contiguous(memory_format=layout).requires_grad_()
            (slope,) = torch.autograd.grad(path({"s0": features}, target, batch_of(2))["s0"], [features])
            assert (slope * direction).sum().item() == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


GOLDENS = {
    "NSTPolynomial": (
        golden_by_positions,
        golden_by_channels,
        golden_widths_differ,
        golden_batch,
        golden_silent_channel,
        golden_pools_before_normalising,
        golden_rounding_below_zero,
        golden_slope,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair by pair of channels: the kernel in the student, in the teacher, and across; three means."""
    losses = {}
    for layer, pairs in samples(path, student, teacher).items():
        discrepancies = []
        for maps in pairs:
            s, t = ([_unit(flat(grid)) for grid in side] for side in pooled_alike(*maps))
            discrepancies.append(_mean_kernel(s, s) + _mean_kernel(t, t) - 2 * _mean_kernel(s, t))
        losses[layer] = sum(discrepancies) / len(discrepancies)
    return losses


def _unit(row: list[float]) -> list[float]:
    length = max(math.sqrt(dot(row, row)), 1e-6)
    return [value / length for value in row]


def _mean_kernel(one: list[list[float]], other: list[list[float]]) -> float:
    values = [dot(a, b) ** 2 for a in one for b in other]
    return sum(values) / len(values)


FORMS = pytest.mark.parametrize(
    ("wide", "out", "size"), [(4, 4, 8), (8, 12, 3), (3, 7, 6)], ids=["by channels", "by positions", "widths differ"]
)


@FORMS
def test_both_forms_agree(wide: int, out: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("NSTPolynomial", student=[(wide, size, size)], teacher=[(out, size, size)])
    features = case.student["s0"].requires_grad_()
    found = []
    for few in (True, False):
        monkeypatch.setattr(module, "columns_are_few", lambda *_, few=few: few)
        loss = case.loss()
        found.append((loss, *torch.autograd.grad(loss, [features])))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-14)


@FORMS
def test_form_of_fewer_multiply_adds_is_taken(wide: int, out: int, size: int) -> None:
    case = make_case("NSTPolynomial", student=[(wide, size, size)], teacher=[(out, size, size)], dtype=torch.float32)
    sizes: list[tuple[int, ...]] = []

    class Shapes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor):
                sizes.append(tuple(result.shape[1:]))
            return result

    case.student["s0"].requires_grad_()
    with Shapes():
        case.losses()["s0"].backward()
    positions = size**2
    by_channels = (wide, out, size) != (8, 12, 3)
    assert ((wide, wide) in sizes) is by_channels
    assert ((positions, positions) in sizes) is not by_channels


@FORMS
def test_order_scale_and_sign_of_channels_do_not_count(wide: int, out: int, size: int) -> None:
    features = torch.randn(2, out, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = connect(NSTPolynomial(), [(out, size, size)], [(out, size, size)])
    target = path.target({"t0": features})
    changed = -3 * features[:, torch.randperm(out, generator=torch.Generator().manual_seed(1))]
    assert path({"s0": changed}, target, batch_of(2))["s0"].item() == pytest.approx(0, abs=1e-14)
    assert path({"s0": changed.roll(1, dims=3)}, target, batch_of(2))["s0"] > 1e-3


def test_each_channel_twice_is_the_same_distribution() -> None:
    features = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    path = connect(NSTPolynomial(), [(6, 4, 4)], [(3, 4, 4)])
    twice = torch.cat([features, features], dim=1)
    loss = path({"s0": twice}, path.target({"t0": features}), batch_of(2))["s0"]
    assert loss.item() == pytest.approx(0, abs=1e-14)


def test_owns_nothing_to_learn() -> None:
    assert not list(connect(NSTPolynomial(), [(3, 4, 4)], [(8, 4, 4)]).parameters())


def test_paths_between_whole_maps_share_a_stored_target() -> None:
    shapes = [(3, 4, 4)], [(5, 4, 4)]
    digests = {path_column("path", connect(cls(), *shapes)).digest for cls in (NSTPolynomial, CWD, PKD)}
    assert len(digests) == 1


GRAM = "distill.paths.gram"
POOLED = "student, target = pooled_alike(student, target)"

MUTANTS = {
    "NSTPolynomial": [
        ("EPSILON = 1e-6", "EPSILON = 1e-12"),
        ("vector_norm(rows, dim=2", "vector_norm(rows, 1, dim=2"),
        ("vector_norm(rows, dim=2", "vector_norm(rows, dim=1"),
        ("math.sqrt(rows.shape[1])", "rows.shape[1]"),
        ("math.sqrt(rows.shape[1])", "math.sqrt(rows.shape[2])"),
        ("rows / (lengths.clamp_min(EPSILON) *", "rows / (1 *"),
        ("rows.mT @ rows - other.mT @ other", "rows.mT @ rows + other.mT @ other"),
        (").square().sum(dim=(1, 2)).mean()", ").abs().sum(dim=(1, 2)).mean()"),
        (").square().sum(dim=(1, 2)).mean()", ").square().mean(dim=(1, 2)).mean()"),
        (").square().sum(dim=(1, 2)).mean()", ").square().sum(dim=(1, 2)).sum()"),
        ("other.mT).clamp_min(0).mean()", "other.mT).mean()"),
        ("other.mT).clamp_min(0).mean()", "other.mT).clamp_min(0).sum()"),
        (POOLED, "student, target = pooled_alike(_unit_rows(student)[:, :, None], _unit_rows(target)[:, :, None])"),
        ("- 2 * _energy(cross)", "- _energy(cross)", GRAM),
        ("4 * gradients[0]", "2 * gradients[0]", GRAM),
        ("target.mT, alpha=-1).mT", "target.mT, alpha=1).mT", GRAM),
        ("target, cross.mT, alpha=-1)", "target, cross.mT, alpha=1)", GRAM),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "distill.paths.sizes"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
