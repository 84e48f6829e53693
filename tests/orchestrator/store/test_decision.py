"""Storing against asking again, by hand-made costs."""

import pytest
from store_cases import group, measurement

from orchestrator.store.decision import ask_always, decide, describe, is_asked_once, size_words

SMALL, LARGE = 40, 3_000_000


def test_what_many_runs_ask_is_stored():
    groups = [group(["kd"], ["kd"], ["kd", "at"], seed=seed) for seed in (0, 1)]
    decision = decide(groups, measurement({"kd": SMALL, "at": 100}), mode="auto", budget_bytes=1e9)
    assert decision.stored == ("kd", "at")
    assert decision.asked_without == 2 * 3 * 10 * 1000
    assert decision.asked == 2 * 10 * 1000  # once a view
    assert decision.stored_bytes == 2 * 10 * 1000 * (SMALL + 100)
    assert decision.seconds == pytest.approx(20 + (2 * 10_000 * 140 + 2 * 10_000 * (3 * SMALL + 100)) * 1e-9)
    assert decision.seconds_without == 60


def test_a_target_that_is_slower_to_read_than_to_ask_again_is_not_stored():
    decision = decide(
        [group(["kd"], ["kd"], ["hint"], ["hint"])],
        measurement({"kd": SMALL, "hint": LARGE}),
        mode="auto",
        budget_bytes=1e15,
    )
    assert decision.stored == ("kd",)
    assert decision.reasons == {"hint": "asking again is cheaper"}
    assert decision.asked == (10 + 2 * 10) * 1000


def test_a_path_that_is_never_without_a_live_one_is_not_worth_storing():
    """Where another path asks the teacher anyway, nothing is saved."""
    decision = decide(
        [group(["kd", "own"], ["kd", "own"])],
        measurement({"kd": SMALL}, refusals={"own": "Own declares that its target cannot be stored"}),
        mode="auto",
        budget_bytes=1e9,
    )
    assert decision.stored == ()
    assert decision.reasons["kd"] == "asking again is cheaper"
    assert "declares" in decision.reasons["own"]


def test_paths_that_need_the_same_target_share_it():
    measured = measurement({"kd": SMALL, "logits": SMALL, "at": 100}, columns={"kd": "x", "logits": "x", "at": "y"})
    groups = [group(["kd"], ["logits"], ["kd", "logits", "at"])]
    decision = decide(groups, measured, mode="auto", budget_bytes=10 * 1000 * (SMALL + 100))
    assert set(decision.stored) == {"kd", "logits", "at"}
    assert decision.stored_bytes == 10 * 1000 * (SMALL + 100)
    assert decision.seconds == pytest.approx(10 + (10_000 * 140 + 10_000 * (4 * SMALL + 100)) * 1e-9)
    assert "(kd+logits 40 B, at 100 B an image)" in describe({"": decision})[0]
    one = decide(groups, measured, mode="exact", budget_bytes=10 * 1000 * SMALL)
    assert one.stored == ("kd", "logits")


@pytest.mark.parametrize("mode", ["exact", "float16"])
def test_by_order_everything_is_stored_that_fits(mode):
    groups = [group(["kd"], ["hint"])]
    decision = decide(groups, measurement({"kd": SMALL, "hint": LARGE}), mode=mode, budget_bytes=1e15)
    assert set(decision.stored) == {"kd", "hint"}
    assert decision.row_bytes["hint"] == (LARGE if mode == "exact" else LARGE // 2)
    tight = decide(groups, measurement({"kd": SMALL, "hint": LARGE}), mode=mode, budget_bytes=2**30)
    assert tight.stored == ("kd",)
    assert tight.reasons == {"hint": "would exceed run.store_gib (1 GiB)"}


def test_the_budget_binds():
    decision = decide(
        [group(["kd"], ["kd"])], measurement({"kd": SMALL}), mode="auto", budget_bytes=10 * 1000 * SMALL - 1
    )
    assert decision.stored == ()
    assert "run.store_gib" in decision.reasons["kd"]


def test_views_that_repeat_are_stored_once():
    decision = decide([group(["kd"], views=2)], measurement({"kd": SMALL}), mode="auto", budget_bytes=1e9)
    assert decision.stored == ("kd",)
    assert (decision.asked, decision.asked_without) == (2 * 1000, 10 * 1000)


def test_without_augmentation_there_is_one_view():
    assert group(["kd"], has_augmentation=False).num_views == 1
    assert group(["kd"], epochs=10, views=4).num_views == 4
    assert group(["kd"], epochs=3, views=4).num_views == 3
    assert group([], epochs=10).num_views == 0


@pytest.mark.parametrize(
    ("groups", "once"),
    [
        ([group(["kd"])], True),
        ([group(["kd"], []), group(["kd"], seed=1)], True),
        ([group(["kd"], ["at"])], False),
        ([group(["kd"], views=2)], False),
    ],
)
def test_a_single_pass_has_nothing_to_store(groups, once):
    assert is_asked_once(groups) is once


def test_with_many_paths_the_small_ones_come_first():
    names = [f"p{number}" for number in range(14)]
    sizes = {name: SMALL if number < 13 else LARGE for number, name in enumerate(names)}
    groups = [group(*[[name] for name in names], *[[name] for name in names])]
    assert set(decide(groups, measurement(sizes), mode="auto", budget_bytes=1e15).stored) == set(names[:13])


def test_it_reads_well():
    decision = decide(
        [group(["kd"], ["kd", "own"], ["kd"])],
        measurement({"kd": SMALL}, refusals={"own": "why"}),
        mode="auto",
        budget_bytes=1e9,
    )
    assert describe({"": decision}) == [
        "Targets: stored, 400 kB in all (kd 40 B an image); the teacher is asked for 20,000 training images instead of "
        "30,000, about 20 s of work instead of 30 s",
        "  own asks the teacher for every batch: why",
    ]
    assert describe({"a to b": ask_always([group(["kd"])], "store: off")}) == [
        "Targets of a to b: nothing is stored",
        "  kd asks the teacher for every batch: store: off",
    ]
    assert [size_words(size) for size in (0, 999, 1000, 123456, 5.1e9, 7e13)] == [
        "0 B", "999 B", "1.0 kB", "123 kB", "5.1 GB", "70.0 TB",
    ]  # fmt: skip
