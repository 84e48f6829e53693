from __future__ import annotations

import math

import pytest
from ray.tune.search import Searcher

from orchestrator.arm_searcher import ArmSearcher
from orchestrator.config.planned_run import PlannedRun
from orchestrator.hosts.messages import pack_report, pack_result
from orchestrator.past_run import PastRun
from orchestrator.roster import Roster

METRIC = "val/accuracy"


def planned(arm: str, seed: int) -> PlannedRun:
    return PlannedRun(
        key=f"{arm}{seed}",
        name=f"{arm} s{seed}",
        arm=arm,
        aggregator="none",
        paths=(),
        seed=seed,
        kind="student" if arm == "alone" else "run",
        context={},
        config={},
        config_hash="",
    )


class Proposer:
    """Proposes the given arms, two seeds each, and keeps what it hears."""

    def __init__(self, *arms: str) -> None:
        self._arms = list(arms)
        self.heard: list[object] = []

    def next_arm(self) -> list[PlannedRun] | None:
        if not self._arms:
            return None
        arm = self._arms.pop(0)
        self.heard.append(arm)
        return [planned(arm, 0), planned(arm, 1)]

    def tell(self, arm: str, mean_metric: float) -> None:
        self.heard.append((arm, mean_metric))

    def stopped(self, arm: str) -> None:
        self.heard.append((arm, "stopped"))


class Sweep:
    def __init__(self, proposer: Proposer, *, first=(), past=()) -> None:
        self.roster = Roster()
        self.replayed: list[str] = []
        self.searcher = ArmSearcher(
            self.roster,
            first=first,
            proposer=proposer,
            past={run.key: run for run in past},
            metric=METRIC,
            replay=lambda arm: self.replayed.append(arm.name),
            suggestion=lambda run: {"key": run.key},
        )

    def take(self, number: int) -> list[str]:
        """Suggest so many trials, whose ids are their keys, and return the keys."""
        keys = []
        for _ in range(number):
            suggestion = self.searcher.suggest("next")
            if suggestion == Searcher.FINISHED:
                break
            key = suggestion["key"]
            self.searcher._keys[key] = self.searcher._keys.pop("next")
            keys.append(key)
        return keys

    def end(self, key: str, value: float | None, status: str = "finished") -> None:
        if value is not None:
            self.roster.arm(key).record(key, epoch=1, value=value)
        self.searcher.on_trial_complete(key, pack_result({"status": status}))


def test_controls_come_first_then_arms_seed_by_seed():
    sweep = Sweep(Proposer("a", "b"), first=[planned("alone", 0), planned("alone", 1)])
    assert sweep.take(9) == ["alone0", "alone1", "a0", "a1", "b0", "b1"]
    assert sweep.searcher.suggest("more") == Searcher.FINISHED


def test_the_proposer_is_asked_no_earlier_than_needed_and_told_the_mean_of_a_complete_arm():
    proposer = Proposer("a", "b")
    sweep = Sweep(proposer)
    assert sweep.take(2) == ["a0", "a1"]
    assert proposer.heard == ["a"]
    sweep.end("a0", 10)
    assert proposer.heard == ["a"]
    sweep.end("a1", 20)
    assert proposer.heard == ["a", ("a", 15.0)]
    assert sweep.take(1) == ["b0"]
    assert proposer.heard == ["a", ("a", 15.0), "b"]


def test_the_last_value_counts():
    proposer = Proposer("a")
    sweep = Sweep(proposer)
    sweep.take(2)
    for epoch, value in ((1, 99), (3, 10), (2, 50)):
        sweep.roster.arm("a0").record("a0", epoch=epoch, value=value)
    sweep.end("a1", 20)
    sweep.end("a0", None)
    assert proposer.heard[-1] == ("a", 15.0)


def test_an_arm_with_a_failed_seed_has_no_value():
    proposer = Proposer("a", "b")
    sweep = Sweep(proposer)
    sweep.take(4)
    sweep.end("a0", 10)
    sweep.searcher.on_trial_complete("a1", {}, error=True)
    assert proposer.heard[-1][0] == "a"
    assert math.isnan(proposer.heard[-1][1])
    sweep.end("b0", 10)
    sweep.end("b1", None, "failed")
    assert math.isnan(proposer.heard[-1][1])
    assert sweep.roster.result("b1")["status"] == "failed"


def test_an_arm_with_a_stopped_seed_was_stopped():
    proposer = Proposer("a")
    sweep = Sweep(proposer)
    sweep.take(2)
    sweep.end("a0", 10)
    sweep.searcher.on_trial_complete("a1", pack_report({"epoch": 1}))  # cut short: its last message is a report
    assert proposer.heard[-1] == ("a", "stopped")
    assert sweep.roster.result("a1") == {"status": "stopped"}


def test_the_proposer_hears_nothing_of_controls():
    proposer = Proposer()
    sweep = Sweep(proposer, first=[planned("alone", 0)])
    sweep.take(1)
    sweep.end("alone0", 10)
    assert proposer.heard == []


def history(*values: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, METRIC: value} for epoch, value in enumerate(values, start=1)]


def test_what_has_ended_earlier_is_heard_of_and_not_run_again():
    proposer = Proposer("a", "b", "c", "d")
    past = [
        PastRun("alone0", history(1), {"status": "finished"}),
        PastRun("a0", history(1, 10), {"status": "finished"}),
        PastRun("a1", history(1, 20), {"status": "finished"}),
        PastRun("b0", history(1), {"status": "stopped"}),
        PastRun("b1", history(1), {"status": "stopped"}),
        PastRun("c0", history(5)),
    ]
    sweep = Sweep(proposer, first=[planned("alone", 0)], past=past)
    assert sweep.take(1) == ["c0"]
    # d is drawn no earlier than needed: c1 was never started, so that nothing after it was.
    assert proposer.heard == ["a", ("a", 15.0), "b", ("b", "stopped"), "c"]
    assert sweep.replayed == ["alone", "a", "b", "c"]
    assert sweep.roster.arm("c0").means() == {}
    assert sweep.take(9) == ["c1", "d0", "d1"]
    assert sweep.replayed == ["alone", "a", "b", "c"]
    sweep.end("c1", 7)
    sweep.end("c0", None)
    assert proposer.heard[-1] == ("c", 6.0)


def test_arms_after_an_unfinished_one_are_replayed_before_anything_runs():
    """With several runs at once an arm may have ended before an earlier one."""
    past = [
        PastRun("a0", history(3)),
        PastRun("a1", history(3)),
        *(PastRun(key, history(8), {"status": "finished"}) for key in ("b0", "b1")),
    ]
    proposer = Proposer("a", "b", "c")
    sweep = Sweep(proposer, past=past)
    assert sweep.take(1) == ["a0"]
    assert ("b", 8.0) in proposer.heard
    assert sweep.replayed == ["a", "b"]
    assert sweep.take(9) == ["a1", "c0", "c1"]


def test_a_sweep_that_is_done_hands_out_nothing():
    past = [PastRun(f"a{seed}", history(1), {"status": "finished"}) for seed in (0, 1)]
    sweep = Sweep(Proposer("a"), past=past)
    assert sweep.searcher.suggest("x") == Searcher.FINISHED


def test_a_run_planned_twice_is_refused():
    sweep = Sweep(Proposer("a"), first=[planned("a", 0)])
    sweep.take(1)
    with pytest.raises(ValueError, match=r"a s0 .* planned twice"):
        sweep.take(1)


def test_ray_is_given_nothing_to_save(tmp_path):
    Sweep(Proposer()).searcher.save(str(tmp_path / "state"))
    assert list(tmp_path.iterdir()) == []
