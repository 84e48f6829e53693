from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from modifier_cases import connected, losses_at, reweigh

from distill.aggregators.modifiers import Modifier, Ramp


def near(found: list[float], *wanted: float) -> bool:
    return len(found) == len(wanted) and all(
        map(lambda a, b: math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-7), found, wanted)
    )


def golden_linear(make: Callable[..., Modifier]) -> None:
    # From 2 at 0.2 to 4 at 0.6: before it 2, at 0.3 a quarter of the way, 2.5, behind it 4; weights 1 and 10.
    ramp = connected(make(2.0, 4.0, 0.2, 0.6), 2)
    assert near(reweigh(ramp, 1.0, 10.0, progress=0.0), 2.0, 20.0)
    assert near(reweigh(ramp, 1.0, 10.0, progress=0.2), 2.0, 20.0)
    assert near(reweigh(ramp, 1.0, 10.0, progress=0.3), 2.5, 25.0)
    assert near(reweigh(ramp, 1.0, 10.0, progress=0.6), 4.0, 40.0)
    assert near(reweigh(ramp, 1.0, 10.0, progress=1.0), 4.0, 40.0)


def golden_cosine(make: Callable[..., Modifier]) -> None:
    # (1 - cos(pi x)) / 2: at a quarter (1 - sqrt(1/2)) / 2 = 0.1464466, at a half 1/2.
    ramp = connected(make(0.0, 1.0, shape="cosine"), 1)
    found = [reweigh(ramp, 1.0, progress=progress)[0] for progress in (0.0, 0.25, 0.5, 1.0)]
    assert near(found, 0.0, (1 - math.sqrt(0.5)) / 2, 0.5, 1.0)


def golden_default(make: Callable[..., Modifier]) -> None:
    # The labels have the last word: from 1 to 0 over the whole training.
    ramp = connected(make(), 1)
    assert near([reweigh(ramp, 3.0, progress=progress)[0] for progress in (0.0, 0.75, 1.0)], 3.0, 0.75, 0.0)


GOLDENS = {"Ramp": (golden_linear, golden_cosine, golden_default)}


@pytest.mark.parametrize("shape", ["linear", "cosine"])
@pytest.mark.parametrize(("first", "last"), [(0.0, 1.0), (1.0, 0.0), (0.1, 0.3), (1e-10, 1e10), (5.0, 5.0)])
def test_the_ends_are_exact(shape: Any, first: float, last: float) -> None:
    ramp = connected(Ramp(first, last, 0.25, 0.5, shape), 1)
    for progress, factor in ((0.0, first), (0.25, first), (0.5, last), (1.0, last)):
        (found,) = reweigh(ramp, 1.0, progress=progress)
        assert found == pytest.approx(factor, rel=1e-6, abs=0)


def test_progress_may_be_a_tensor_as_a_distiller_has_it() -> None:
    ramp = connected(Ramp(), 1)
    losses = losses_at(torch.tensor(0.25), 0.0)  # type: ignore[arg-type]
    assert ramp.reweigh(torch.tensor([2.0]), losses).tolist() == [1.5]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"first": -1}, "first must be a finite number of at least 0, found -1"),
        ({"last": math.nan}, "last must be a finite number of at least 0, found nan"),
        ({"start": -0.1}, "start must be a finite number of at least 0, found -0.1"),
        ({"start": 0.5, "end": 0.5}, "end must be a finite number above 0.5, found 0.5"),
        ({"end": 1.5}, "end must be a share of the training, at most 1, found 1.5"),
        ({"shape": "step"}, "shape must be 'linear' or 'cosine', found 'step'"),
    ],
)
def test_options_are_checked_at_construction(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Ramp(**options)


MUTANTS = {
    "Ramp": [
        ("(done - self.start)", "done"),
        ("(self.end - self.start)", "self.end"),
        (".clamp(0, 1)", ".clamp(min=0)"),
        (".clamp(0, 1)", ".clamp(max=1)"),
        ("(1 - torch.cos(math.pi * share)) / 2", "1 - torch.cos(math.pi * share / 2)"),
        ('self.shape == "cosine"', 'self.shape != "cosine"'),
        ("(self.last - self.first) * share", "(self.first - self.last) * share"),
        ("weights * (self.first +", "weights * (1 +"),
        ("last: float = 0.0", "last: float = 1.0"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
