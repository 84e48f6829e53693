from __future__ import annotations

from distill.aggregators.period import Period


def due(period: Period, number: int) -> list[bool]:
    found = []
    for _ in range(number):
        found.append(period.is_due)
        period.advance()
    return found


def test_the_first_step_is_looked_at_and_every_third_from_there() -> None:
    assert due(Period(3), 7) == [True, False, False, True, False, False, True]
    assert due(Period(1), 3) == [True, True, True]


def test_the_count_is_in_checkpoints() -> None:
    saved, restored = Period(3), Period(3)
    due(saved, 5)
    restored.load_state_dict(saved.state_dict())
    assert due(restored, 3) == [False, True, False]
