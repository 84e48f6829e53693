"""The decisions for whole arms, without a cluster: Ray's own rules judge, trials are stand-ins."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from orchestrator.arm_scheduler import ArmScheduler
from orchestrator.config.planned_run import PlannedRun
from orchestrator.hosts.messages import pack_report, pack_result
from orchestrator.roster import Roster
from orchestrator.schedulers import ASHA, MedianStopping

METRIC = "val/accuracy"


def planned(arm: str, seed: int, *, kind: str = "run", epochs: int | None = 9) -> PlannedRun:
    return PlannedRun(
        key=f"{arm}{seed}",
        name=f"{arm} s{seed}",
        arm=arm,
        aggregator="none",
        paths=(),
        seed=seed,
        kind=kind,
        context={},
        config={"train": {"epochs": epochs}} if epochs else {},
        config_hash="",
    )


class Sweep:
    """A roster and a scheduler, and what the scheduler asked for."""

    def __init__(self, rule=None, mode: str = "max", epochs: int = 9) -> None:
        self.roster = Roster()
        self.asked: list[str] = []
        self.scheduler = ArmScheduler(
            self.roster,
            metric=METRIC,
            rule=rule and rule.build(metric=METRIC, mode=mode, num_epochs=epochs),
            ask_to_stop=self.asked.append,
        )

    def add(self, arm: str, num_seeds: int = 2, **options):
        return self.roster.add([planned(arm, seed, **options) for seed in range(num_seeds)])

    def report(self, key: str, epoch: int, value: float | None) -> str:
        metrics = {"epoch": epoch} | ({} if value is None else {METRIC: value})
        trial = SimpleNamespace(config={"key": key}, trial_id="t", status="RUNNING")
        return self.scheduler.on_trial_result(None, trial, pack_report(metrics))


@pytest.fixture
def halving():
    """Halves at epochs 1, 2, 4 and 8."""
    return Sweep(ASHA(grace_period=1, reduction_factor=2))


def test_an_arm_is_judged_by_its_mean_once_all_seeds_have_reported(halving):
    halving.add("good")
    halving.add("bad")
    assert halving.report("good0", 1, 10) == "CONTINUE"
    assert halving.report("good1", 1, 20) == "CONTINUE"
    assert halving.report("bad0", 1, 29) == "CONTINUE"
    assert halving.asked == []
    # 29 and 0 are 14.5 on average, below the 15 of the other arm, though 29 alone would be the best run of all.
    assert halving.report("bad1", 1, 0) == "CONTINUE"
    assert halving.asked == ["bad0", "bad1"]


def test_a_better_arm_goes_on(halving):
    halving.add("first")
    halving.add("second")
    for key, value in (("first0", 10), ("first1", 20), ("second0", 30), ("second1", 0.5)):
        halving.report(key, 1, value)
    assert halving.asked == []


def test_smaller_can_be_better():
    sweep = Sweep(ASHA(grace_period=1, reduction_factor=2), mode="min")
    sweep.add("small", 1)
    sweep.add("large", 1)
    sweep.report("small0", 1, 1.0)
    sweep.report("large0", 1, 2.0)
    assert sweep.asked == ["large0"]


def test_a_run_that_does_not_listen_is_cut_short(halving):
    halving.add("good", 1)
    halving.add("bad", 2)
    halving.report("good0", 1, 10)
    halving.report("bad0", 1, 1)
    halving.report("bad1", 1, 1)
    # The report that is on its way may still come; the next one means that nobody listens.
    assert halving.report("bad0", 2, 99) == "CONTINUE"
    assert halving.report("bad1", 2, 99) == "CONTINUE"
    assert halving.report("bad0", 3, 99) == "STOP"
    assert halving.asked == ["bad0", "bad1"]


def test_controls_are_never_stopped_nor_compared_with(halving):
    halving.add("alone", 1, kind="student")
    halving.add("only", 1)
    halving.report("only0", 1, 10)
    halving.report("alone0", 1, 1)
    halving.add("other", 1)
    halving.report("alone0", 2, 99)
    halving.report("other0", 1, 11)
    halving.report("other0", 2, 11)
    assert halving.asked == []


def test_an_arm_is_not_stopped_after_its_last_epoch(halving):
    halving.add("good", 1, epochs=4)
    halving.add("bad", 1, epochs=4)
    for epoch in (1, 2, 4):
        halving.report("good0", epoch, 10)
        halving.report("bad0", epoch, 10 if epoch < 4 else 1)
    assert halving.asked == []
    halving.add("worse", 1, epochs=5)
    for epoch in (1, 2, 4):
        halving.report("worse0", epoch, 20 if epoch < 4 else 1)
    assert halving.asked == ["worse0"]


def test_asha_leaves_arms_alone_that_have_reached_its_last_epoch():
    sweep = Sweep(ASHA(grace_period=1, reduction_factor=2, max_epochs=2))
    sweep.add("a", 1)
    for epoch in range(1, 8):
        sweep.report("a0", epoch, 1)
    assert sweep.asked == []


def test_a_failed_seed_does_not_hold_its_arm_back(halving):
    halving.add("good", 1)
    halving.add("bad", 2)
    halving.report("good0", 1, 10)
    halving.report("bad0", 1, 1)
    assert halving.asked == []
    halving.roster.end("bad1", {"status": "failed"})
    halving.report("bad0", 2, 1)
    assert "bad0" in halving.asked


def test_epochs_reported_again_after_a_retry_are_judged_once(halving):
    halving.add("good", 1)
    halving.add("bad", 1)
    halving.report("bad0", 1, 1)
    halving.report("good0", 1, 10)
    assert halving.report("bad0", 1, 1) == "CONTINUE"
    assert halving.asked == []


@pytest.mark.parametrize("rule", [None, ASHA()])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_metric_that_is_not_finite_stops_its_run_alone(rule, value):
    sweep = Sweep(rule)
    sweep.add("a", 2)
    sweep.report("a0", 1, 5)
    assert sweep.report("a1", 1, value) == "STOP"
    sweep.roster.end("a1", None)
    assert sweep.roster.result("a1") == {"status": "failed", "reason": f"val/accuracy is {value} after epoch 1"}
    assert sweep.report("a0", 2, 5) == "CONTINUE"


def test_a_control_that_is_not_finite_is_stopped_too():
    sweep = Sweep()
    sweep.add("alone", 1, kind="student")
    assert sweep.report("alone0", 3, math.nan) == "STOP"


def test_reports_without_the_metric_and_results_change_nothing(halving):
    halving.add("a", 1)
    assert halving.report("a0", 1, None) == "CONTINUE"
    trial = SimpleNamespace(config={"key": "a0"}, trial_id="t")
    assert halving.scheduler.on_trial_result(None, trial, pack_result({"status": "finished"})) == "CONTINUE"


def test_the_median_rule_stops_below_the_median_and_never_pauses():
    sweep = Sweep(MedianStopping(grace_period=1, min_arms=2))
    for arm, value in (("a", 10), ("b", 20), ("c", 30)):
        sweep.add(arm, 1)
        for epoch in (1, 2):
            assert sweep.report(f"{arm}0", epoch, value) == "CONTINUE"
    assert sweep.asked == []
    sweep.add("d", 1)
    sweep.report("d0", 1, 19)  # the median of 10, 20 and 30 is 20
    assert sweep.asked == ["d0"]


def test_earlier_arms_are_known_to_the_rule_but_not_decided_on_again(halving):
    old = halving.add("old", 1)
    older = halving.add("older", 1)
    for epoch, value in ((1, 10), (2, 30)):
        old.record("old0", epoch=epoch, value=value)
    older.record("older0", epoch=1, value=1)
    halving.scheduler.replay(old)
    halving.scheduler.replay(older)
    assert halving.asked == []
    halving.add("new", 1)
    halving.report("new0", 1, 40)
    assert halving.asked == []
    halving.report("new0", 2, 29)
    assert halving.asked == ["new0"]


def test_the_rest_of_an_arm_that_was_being_stopped_is_asked_to_stop(halving):
    arm = halving.add("a", 2)
    halving.roster.end("a0", {"status": "stopped"})
    halving.scheduler.replay(arm)
    assert "a1" in halving.asked


def test_metrics_keep_their_names_on_the_way():
    packed = pack_report({"epoch": 1, "train/loss/a.b": 0.5})
    assert json.loads(next(iter(packed.values()))) == {"epoch": 1, "train/loss/a.b": 0.5}
