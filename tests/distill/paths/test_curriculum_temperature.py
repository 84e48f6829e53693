from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, loss_of, softmax
from torch import Tensor

from distill.paths import CurriculumTemperature, Path
from distill.taps import OUTPUT


def golden_value(cls: type[Path]) -> None:
    # theta = 0: T = 1 + 2 * 1/2 = 2.  Student (0, 2 ln 3): q = (1/4, 3/4); p = (1/2, 1/2): 4 * 1/2 ln(4/3).
    path = cls(low=1.0, span=2.0)
    path.theta.data.zero_()
    assert loss_of(path, [[0.0, 2 * math.log(3)]], [[5.0, 5.0]]).item() == pytest.approx(2 * math.log(4 / 3))


def golden_start(cls: type[Path]) -> None:
    # theta starts at 1: T = 1 + 20 / (1 + 1/e).  Student (0, T ln 3).
    temperature = 1 + 20 / (1 + math.exp(-1))
    found = loss_of(cls(), [[0.0, temperature * math.log(3)]], [[0.0, 0.0]])
    assert found.item() == pytest.approx(temperature**2 * math.log(4 / 3) / 2, rel=1e-6)


def golden_reversed_gradient(cls: type[Path]) -> None:
    # Near theta the loss changes by its slope, which the gradient has with the other sign, and in full after the ramp.
    assert gradient(cls(ramp=0.5), progress=0.5) == pytest.approx(-slope(cls()), rel=1e-4)
    assert gradient(cls(ramp=0.5), progress=0.0) == 0
    # A quarter of the ramp: (1 - cos(pi / 4)) / 2 of it.
    quarter = (1 - math.sqrt(0.5)) / 2
    assert gradient(cls(ramp=0.5), progress=0.125) == pytest.approx(-quarter * slope(cls()), rel=1e-4)
    # By default 10 of 240 epochs.
    assert gradient(cls(), progress=5 / 240) == pytest.approx(-slope(cls()) / 2, rel=1e-4)
    assert gradient(cls(ramp=0), progress=0.0) == pytest.approx(-slope(cls()), rel=1e-4)


STUDENT, TEACHER = [[0.0, 9.0, 1.0]], [[2.0, -3.0, 1.0]]


def gradient(path: Path, progress: float) -> float:
    path.double()
    connect(path, [(1, 1, 1)], [(1, 1, 1)], torch.nn.Linear(1, 3))
    taps, target = ({OUTPUT: torch.tensor(rows, dtype=torch.float64)} for rows in (STUDENT, TEACHER))
    path(taps, path.target(target), replace(batch_of(1), progress=progress))["logits"].backward()
    return path.theta.grad.item()


def slope(path: Path) -> float:
    path.double()
    values = []
    for step in (1e-5, -2e-5):
        path.theta.data += step
        values.append(loss_of(path, STUDENT, TEACHER).item())
    return (values[0] - values[1]) / 2e-5


GOLDENS = {"CurriculumTemperature": (golden_value, golden_start, golden_reversed_gradient)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Class by class, at the temperature that theta says."""
    temperature = 1 + 20 / (1 + math.exp(-path.theta.item()))
    total = 0.0
    for one, other in zip(student[OUTPUT].tolist(), teacher[OUTPUT].tolist(), strict=True):
        q, p = (softmax([value / temperature for value in logits]) for logits in (one, other))
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return {"logits": temperature**2 * total / len(student[OUTPUT])}


def test_descent_makes_the_task_harder() -> None:
    """An implementation that reverses twice lowers the loss by the temperature."""
    path = CurriculumTemperature()
    before = loss_of(path, STUDENT, TEACHER).item()
    optimizer = torch.optim.SGD(path.parameters(), lr=0.05)
    for _ in range(20):
        taps, target = ({OUTPUT: torch.tensor(rows)} for rows in (STUDENT, TEACHER))
        optimizer.zero_grad()
        path(taps, path.target(target), replace(batch_of(1), progress=1.0))["logits"].backward()
        optimizer.step()
    assert loss_of(path, STUDENT, TEACHER).item() > before
    assert path.temperature.item() != pytest.approx(1 + 20 / (1 + math.exp(-1)))


@pytest.mark.parametrize("options", [{"low": 0.0}, {"span": math.inf}, {"ramp": -0.1}, {"ramp": 1.5}])
def test_options_out_of_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        CurriculumTemperature(**options)


MUTANTS = {
    "CurriculumTemperature": [
        ("(1 + strength) * self.theta.detach() - strength * self.theta", "self.theta"),
        ("- strength * self.theta\n", "+ strength * self.theta\n"),
        ("(1 - torch.cos", "(1 + torch.cos"),
        ("(1 - torch.cos(math.pi * share)) / 2", "share"),
        ("ramp: float = 10 / 240", "ramp: float = 20 / 240"),
        ("low + self.span * torch.sigmoid(reversed_theta)", "low * self.span * torch.sigmoid(reversed_theta)"),
        ("temperature**2 *", "temperature *"),
        ("mean_divergence(log_p, log_q)", "mean_divergence(log_q, log_p)"),
        ("mean_divergence(log_p, log_q)", "-mean_divergence(log_p, log_q)"),
        ("torch.ones(())", "torch.zeros(())"),
        ("span: float = 20.0", "span: float = 10.0"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
