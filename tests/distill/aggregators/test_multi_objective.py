from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from distill.aggregators import GradientBalance, GradientDirection
from distill.aggregators.multi_objective import DIRECTIONS, REFUSED, WEIGHTINGS, exact_gram
from distill.build import build, check
from distill.slots import AGGREGATOR


def test_torchjd_is_imported_when_a_method_is_made() -> None:
    code = (
        "import sys; from distill.aggregators import GradientBalance; assert 'torchjd' not in sys.modules; "
        "GradientBalance('PCD'); assert 'torchjd' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_torchjd_there_is_one_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    for make in (lambda: GradientBalance("PCD"), lambda: GradientDirection("ConFIG")):
        with pytest.raises(ValueError, match=r"needs torchjd, .*pip install 'distillery\[gradient\]'"):
            make()


@pytest.mark.parametrize(
    ("method", "package"), [("CAGrad", "cvxpy"), ("DualProj", "quadprog"), ("NashMTL", "ecos"), ("UPGrad", "qpsolvers")]
)
def test_without_a_methods_solver_likewise(method: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mixins = pytest.importorskip("torchjd._mixins")
    monkeypatch.setattr(mixins, "find_spec", lambda name: None if name == package else name)
    options = {"c": 0.4} if method == "CAGrad" else {}
    rule = rf"method: {method} needs packages .*{package}.* pip install 'distillery\[gradient\]'"
    with pytest.raises(ValueError, match=rule):
        GradientBalance(method, options)


def test_every_method_of_torchjd_is_known_here() -> None:
    torchjd = pytest.importorskip("torchjd.aggregation")
    bases = {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator", "Weighting", "CRMOGMWeighting"}
    theirs = {name.removesuffix("Weighting") for name in set(torchjd.__all__) - bases}
    assert theirs == {*WEIGHTINGS, *DIRECTIONS, *REFUSED}


def test_files_name_methods_and_their_options() -> None:
    spec: dict[str, Any] = {"use": "GradientBalance", "method": "PCD", "options": {"tau": 0.02}}
    spec |= {"scope": "last", "every": 1, "normalize_rows": False}
    made = build(spec, AGGREGATOR)
    assert isinstance(made, GradientBalance)
    (problem,) = check({**spec, "method": "PDC"}, AGGREGATOR, provided={})
    assert problem.key == "method"
    (problem,) = check({**spec, "options": {"tau": 2}}, AGGREGATOR, provided={})
    assert problem.key == "options.tau"
    (problem,) = check({"use": "GradientBalance", "method": "FairGrad"}, AGGREGATOR, provided={})
    assert problem.key == "options.alpha"
    (problem,) = check({**spec, "scope": "taps"}, AGGREGATOR, provided={})
    assert problem.key == "scope"


def test_inner_products_are_exact_in_any_chunks() -> None:
    rows = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    wanted = rows.double() @ rows.double().mT
    for chunk in (1, 3, 10, 100):
        found = exact_gram(rows, chunk=chunk)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, wanted, rtol=1e-14, atol=1e-14)
    # In float32 this one is zero: 1 + 1e-9 - 1.
    close = torch.tensor([[1.0, 1e-5, 1.0], [1.0, 1e-4, -1.0]])
    assert exact_gram(close)[0, 1].item() == pytest.approx(1e-9)
