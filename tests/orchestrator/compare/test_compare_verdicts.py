"""Holm's correction and the words for an effect."""

import pytest

from orchestrator.compare.estimate import Estimate
from orchestrator.compare.verdicts import adjust, holm, verdict


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 is 0.02, 0.03, 0.06, 0.04; never below the one before: 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_stops_at_one():
    assert holm([0.9, 0.6]) == pytest.approx([1.0, 1.0])


def test_estimates_without_a_p_value_do_not_count():
    # t = 3 on 10 degrees of freedom: p = 0.013344, times 1 and not times 3.
    tested = Estimate(3.0, 1.0, 10.0)
    assert adjust([None, tested, Estimate(1.0)]) == [None, pytest.approx(0.013344, abs=1e-6), None]


@pytest.mark.parametrize(
    ("difference", "adjusted", "sign", "word"),
    [
        (0.5, 0.049, 1, "helps"),
        (-0.5, 0.049, 1, "hurts"),
        (-0.5, 0.049, -1, "helps"),
        (0.5, 0.05, 1, "undecided"),
        (0.0, 1.0, 1, "undecided"),
        (9.0, None, 1, "undecided"),
    ],
)
def test_the_word_follows_the_corrected_value(difference, adjusted, sign, word):
    assert verdict(Estimate(difference, 1.0, 10.0), adjusted, sign=sign) == word
