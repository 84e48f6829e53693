from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from modifier_cases import connected, look, losses_at

from distill.aggregators.modifiers import CosineGate, Modifier


def near(found: list[float], *wanted: float) -> bool:
    return len(found) == len(wanted) and all(
        map(lambda a, b: math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12), found, wanted)
    )


def normal(value: float) -> float:
    return 0.5 * math.erfc(-value / math.sqrt(2))


def golden_sign_of_one_batch(make: Callable[..., Modifier]) -> None:
    # Du et al.: what points along the task's gradient counts, what points against it does not.
    gate = connected(make(every=1, smoothing=0, z=0, wait=1), 3)
    assert look(gate, 0.9, 0.0, -0.1) == [1.0, 1.0, 0.0]
    assert look(gate, -0.9, 0.1, 0.1) == [0.0, 1.0, 1.0]


def golden_weighted(make: Callable[..., Modifier]) -> None:
    # Smoothing 1/2: 0.8, then (1/4 * 0.8 + 1/2 * 0.2) / (3/4) = 0.4, then less than zero.
    gate = connected(make(every=1, smoothing=0.5, form="weighted"), 1)
    assert near(look(gate, 0.8), 0.8)
    assert near(look(gate, 0.2), 0.4)
    assert look(gate, -1.0) == [0.0]


TWO_LOOKS = (-0.15 + 0.1) / 0.75, math.sqrt(0.11 / 0.75 - (0.05 / 0.75) ** 2)
"""Cosines -0.6 and 0.2 at smoothing 1/2, weights 1/4 and 1/2 of 3/4: mean -1/15, and the error, because these amount to
(3/4)^2 / (1/16 + 1/4) = 1.8 looks: less than one to spare counts as one."""


def golden_error_of_two_looks(make: Callable[..., Modifier]) -> None:
    mean, error = TWO_LOOKS
    z = -mean / error  # where the gate turns: 0.1768
    for certainty, opens in ((1.01 * z, 1.0), (0.99 * z, 0.0)):
        gate = connected(make(every=1, smoothing=0.5, z=certainty, wait=1), 1)
        assert look(gate, -0.6) == [0.0]
        assert look(gate, 0.2) == [opens]


def golden_error_of_many_looks(make: Callable[..., Modifier]) -> None:
    for number in (6, 40):
        check_error(make, [0.3, -0.4] * (number // 2))


def check_error(make: Callable[..., Modifier], cosines: list[float]) -> None:
    # Smoothing 0.9: weights 0.1 * 0.9^age, by hand in plain sums.
    weights = [0.1 * 0.9 ** (len(cosines) - 1 - number) for number in range(len(cosines))]
    total = sum(weights)
    mean = sum(w * c for w, c in zip(weights, cosines, strict=True)) / total
    variance = sum(w * (c - mean) ** 2 for w, c in zip(weights, cosines, strict=True)) / total
    looks = total**2 / sum(w * w for w in weights)
    error = math.sqrt(variance / (looks - 1))
    gate = connected(make(every=1, form="smooth"), 1)
    for cosine in cosines:
        (found,) = look(gate, cosine)
    assert near([found], 2 * normal(mean / error))
    assert 0.1 < found < 0.9


def golden_smooth(make: Callable[..., Modifier]) -> None:
    mean, error = TWO_LOOKS
    gate = connected(make(every=1, smoothing=0.5, form="smooth", wait=2), 2)
    assert look(gate, -0.6, 0.6) == [1.0, 1.0]
    assert near(look(gate, 0.2, 0.2), 2 * normal(mean / error), 1.0)


def golden_starts_closed(make: Callable[..., Modifier]) -> None:
    # Wants 0.6 - z * 0 > 0 of two looks; at right angles it never opens.
    gate = connected(make(every=1, start="closed", wait=2), 3)
    assert look(gate, 0.6, 0.0, -0.6, length=0.0) == [0.0, 0.0, 0.0]
    assert look(gate, 0.6, 0.0, -0.6) == [0.0, 0.0, 0.0]
    assert look(gate, 0.6, 0.0, -0.6) == [1.0, 0.0, 0.0]


def golden_closed_wants_certainty(make: Callable[..., Modifier]) -> None:
    # The two looks the other way round in sign: 1/15 is above 0, and above z errors for z below 0.1768 alone.
    mean, error = TWO_LOOKS
    for certainty, opens in ((-1.01 * mean / error, 0.0), (-0.99 * mean / error, 1.0)):
        gate = connected(make(every=1, smoothing=0.5, z=certainty, wait=2, start="closed"), 1)
        look(gate, 0.6)
        assert look(gate, -0.2) == [opens]


def golden_waits(make: Callable[..., Modifier]) -> None:
    gate = connected(make(every=1), 1)
    assert [look(gate, -0.5)[0] for _ in range(3)] == [1.0, 1.0, 0.0]


def golden_every(make: Callable[..., Modifier]) -> None:
    # Looks in steps 0, 3, 6: what happens between them is not seen.
    gate = connected(make(every=3, smoothing=0, z=0, wait=1, dense=0), 1)
    cosines = [0.5, -0.5, -0.5, -0.5, 0.5, 0.5, 0.5]
    assert [look(gate, cosine)[0] for cosine in cosines] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0]


def golden_dense_at_the_start(make: Callable[..., Modifier]) -> None:
    # Steps 0 to 3 and then 5 and 10 are looked at: six of eleven.
    gate = connected(make(every=5, dense=4), 1)
    looks = []
    for _ in range(11):
        look(gate, 0.5)
        looks.append(gate._looks.item())
    assert looks == [1, 2, 3, 4, 4, 5, 5, 5, 5, 5, 6]
    assert make().dense == 30


def golden_scales_the_weight(make: Callable[..., Modifier]) -> None:
    gate = connected(make(every=1, form="weighted"), 2)
    gate.advance(0.0)
    found = gate.reweigh(torch.tensor([4.0, 8.0], dtype=torch.float64), losses_at(0.0, 0.5, 0.25))
    assert near(found.tolist(), 2.0, 2.0)


GOLDENS = {
    "CosineGate": (
        golden_sign_of_one_batch,
        golden_weighted,
        golden_error_of_two_looks,
        golden_error_of_many_looks,
        golden_smooth,
        golden_starts_closed,
        golden_closed_wants_certainty,
        golden_waits,
        golden_every,
        golden_dense_at_the_start,
        golden_scales_the_weight,
    )
}


def noisy(mean: float, number: int, spread: float = 0.05, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    return (mean + spread * torch.randn(number, generator=generator)).tolist()


@pytest.mark.parametrize("form", ["hard", "smooth"])
def test_a_planted_conflict_closes_the_gate_within_a_few_looks_and_its_end_opens_it_again(form: Any) -> None:
    gate = connected(CosineGate(every=1, form=form), 2)
    closing = [look(gate, cosine, 0.3)[0] for cosine in noisy(-0.3, 6)]
    assert max(closing[3:]) < 1e-3
    opening = [look(gate, cosine, 0.3) for cosine in noisy(0.3, 30)]
    assert opening[0][0] < 0.1
    assert opening[-1] == [1.0, 1.0]
    assert all(other == 1 for _, other in opening), "the other path keeps its gate"


def test_a_path_at_right_angles_stays_as_it_started() -> None:
    # Noise alone: past two standard errors now and then, as it must be; rounding alone: never.
    started_open = connected(CosineGate(every=1), 2)
    started_closed = connected(CosineGate(every=1, start="closed"), 2)
    cosines = noisy(0.0, 500)
    rounding = noisy(0.0, 500, spread=1e-8, seed=1)
    opened, closed = (
        torch.tensor([look(gate, *pair) for pair in zip(cosines, rounding, strict=True)]).mean(dim=0)
        for gate in (started_open, started_closed)
    )
    assert opened[0] > 0.93
    assert closed[0] < 0.07
    assert (opened[1], closed[1]) == (1, 0)


@pytest.mark.parametrize("form", ["hard", "smooth"])
def test_rounding_on_the_wrong_side_closes_nothing(form: Any) -> None:
    gate = connected(CosineGate(every=1, z=0, wait=1, form=form), 1)
    assert [look(gate, -3e-9) for _ in range(5)] == [[1.0]] * 5


@pytest.mark.parametrize("length", [0.0, math.nan, math.inf])
def test_a_gradient_that_is_none_moves_no_gate(length: float) -> None:
    for sign in (-0.5, 0.5):
        for gate in (CosineGate(every=1), CosineGate(every=1, start="closed"), CosineGate(every=1, form="weighted")):
            connected(gate, 1)
            fresh = look(gate, 0.5, length=length)
            assert fresh == [float(gate.start == "open")]
            for _ in range(5):
                settled = look(gate, sign)
            for _ in range(100):
                assert look(gate, 0.5, length=length) == settled
            assert look(gate, sign) == pytest.approx(settled)


def test_a_path_whose_time_has_not_come_does_not_use_up_its_wait() -> None:
    gate = connected(CosineGate(every=1), 2)
    for _ in range(10):
        gate.advance(0.0)
        losses = losses_at(0.0, -0.5, 0.5)
        losses.gradients["taps"].against_task()[0, 2] = 0
        assert gate.reweigh(torch.ones(2), losses).tolist() == [1.0, 1.0]
    assert [look(gate, -0.5, 0.5) for _ in range(3)] == [[1.0, 1.0], [1.0, 1.0], [0.0, 1.0]]


@pytest.mark.parametrize("length", [1e-30, 1e-10, 1e10, 1e30])
def test_the_length_of_a_gradient_does_not_count(length: float) -> None:
    gate = connected(CosineGate(every=1, wait=1, form="weighted"), 1)
    assert look(gate, 0.25, length=length) == pytest.approx([0.25])


def test_every_counts_optimiser_steps_and_not_the_batches_of_one() -> None:
    gate = connected(CosineGate(every=2, smoothing=0, z=0, wait=1, dense=0), 1)
    weights = torch.ones(1)
    for step, first in enumerate([0.5, 0.5, -0.5, 0.5]):
        gate.advance(step / 4)
        found = [gate.reweigh(weights, losses_at(0.0, cosine)).item() for cosine in (first, -first, first)]
        assert found == [[1.0] * 3, [1.0] * 3, [0.0] * 3, [0.0] * 3][step]
    assert gate._looks.item() == 2


def test_evaluation_does_not_look() -> None:
    gate = connected(CosineGate(every=1, smoothing=0, z=0, wait=1), 1)
    gate.eval()
    assert look(gate, -0.5) == [1.0]
    assert gate._looks.item() == 0


@pytest.mark.parametrize("scope", ["taps", "last", "all"])
def test_asks_for_gradients_in_its_scope(scope: Any) -> None:
    assert CosineGate(scope).needs.gradients == {scope}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"scope": "layer"}, "scope must be one of taps, last, all, found 'layer'"),
        ({"every": 0}, "every must be a whole number of at least 1, found 0"),
        ({"smoothing": -0.1}, "smoothing must be a finite number of at least 0, found -0.1"),
        ({"smoothing": 1}, "smoothing must be below 1, or the mean would never change, found 1"),
        ({"z": -1}, "z must be a finite number of at least 0, found -1"),
        ({"form": "soft"}, "form must be one of hard, smooth, weighted, found 'soft'"),
        ({"start": "ajar"}, "start must be one of open, closed, found 'ajar'"),
        ({"start": "closed", "form": "smooth"}, "start: closed needs form: hard, found 'smooth'"),
        ({"wait": 0}, "wait must be a whole number of at least 1, found 0"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        CosineGate(**options)


MUTANTS = {
    "CosineGate": [
        ("self._step % self.every == 0", "self._step % self.every == 1"),
        ("self._step % self.every == 0", "True"),
        ("self._step < self.dense", "self._step <= self.dense"),
        ("self._step < self.dense", "False"),
        ("dense: int = 30", "dense: int = 29"),
        ("weights * self._gates", "weights + self._gates"),
        ("weights * self._gates", "self._gates"),
        ("average.lerp(value, 1 - self.smoothing)", "average.lerp(value, self.smoothing)"),
        ("(self._square, cosine.square())", "(self._square, cosine)"),
        ("mean = self._mean / (1 - old)", "mean = self._mean"),
        ("self._square / (1 - old)", "self._square"),
        (" - mean.square())", ")"),
        ("(1 - old) * (1 + self.smoothing) / ((1 + old)", "(1 + self.smoothing) / ((1 + 0 * old)"),
        ("(looks - 1).clamp_min(1.0)", "looks.clamp_min(1.0)"),
        ("clamp_min(1.0)).sqrt()", "clamp_min(1.0))"),
        ("mean - self.z * error > 0", "mean + self.z * error > 0"),
        ("mean - self.z * error > 0", "mean - self.z * error >= 0"),
        ("mean + self.z * error >= 0", "mean - self.z * error >= 0"),
        ("mean + self.z * error >= 0", "mean + self.z * error > 0"),
        ("mean.clamp_min(0)\n", "mean.abs()\n"),
        ("2 * torch.special.ndtr", "torch.special.ndtr"),
        ("gates, torch.ones_like(gates))", "gates, torch.zeros_like(gates))"),
        ("& (self._looks >= self.wait)", ""),
        ('float(self.start == "open")', "1.0"),
        ("wait: int = 3", "wait: int = 2"),
        ("smoothing: float = 0.9", "smoothing: float = 0.99"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
