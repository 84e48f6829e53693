from __future__ import annotations

from typing import Any

import pytest

from distill.aggregators.needs import Needs


def test_needs_of_two_are_those_of_both() -> None:
    last, everything = (
        Needs(held_out=share, held_out_gradients=frozenset({scope}))  # type: ignore[arg-type]
        for share, scope in ((0.1, "last"), (0.3, "all"))
    )
    assert last | everything == everything | last
    assert (last | everything).held_out == 0.3
    assert (last | everything).held_out_gradients == {"last", "all"}
    assert last | Needs() == last


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"held_out": 1.0}, "held_out must be a share from 0 to below 1, found 1.0"),
        ({"held_out": -0.1}, "held_out must be a share"),
        ({"held_out_gradients": frozenset({"all"})}, "held_out_gradients need held-out samples"),
        ({"held_out": 0.1, "held_out_gradients": frozenset({"taps"})}, "'last' or 'all', found 'taps'"),
    ],
)
def test_needs_that_cannot_be_met_are_refused(options: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        Needs(**options)
