"""Real Ray Tune on one small cluster, with training functions that don't train."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toy_training
from ray.tune.error import TuneError

from orchestrator import sweep_engine
from orchestrator.config.planned_run import PlannedRun
from orchestrator.demand import Demand
from orchestrator.node_group import NodeGroup
from orchestrator.past_run import PastRun
from orchestrator.schedulers.stopping_rule import StoppingRule

METRIC = "val/accuracy"
EPOCHS = 3


def planned(arm: str, seed: int = 0) -> PlannedRun:
    return PlannedRun(
        key=f"{arm}{seed}",
        name=f"{arm} s{seed}",
        arm=arm,
        aggregator="none",
        paths=(),
        seed=seed,
        kind="student" if arm == "alone" else "run",
        context={},
        config={"train": {"epochs": EPOCHS}},
        config_hash="",
    )


class Arms:
    """Gives the arms one by one and keeps what it hears."""

    def __init__(self, *arms: list[PlannedRun]) -> None:
        self._arms = list(arms)
        self.heard: dict[str, Any] = {}

    def next_arm(self) -> list[PlannedRun] | None:
        return self._arms.pop(0) if self._arms else None

    def tell(self, arm: str, mean_metric: float) -> None:
        self.heard[arm] = mean_metric

    def stopped(self, arm: str) -> None:
        self.heard[arm] = "stopped"


class Diary:
    """Listens and remembers."""

    def __init__(self) -> None:
        self.started_keys: list[str] = []
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self.results: dict[str, dict[str, Any]] = {}

    def started(self, run: PlannedRun) -> None:
        assert run.key not in self.started_keys
        self.started_keys.append(run.key)

    def reported(self, run: PlannedRun, metrics) -> None:
        assert run.key not in self.results
        self.reports.setdefault(run.key, []).append(dict(metrics))

    def ended(self, run: PlannedRun, result) -> None:
        assert run.key not in self.results
        self.results[run.key] = dict(result)

    def epochs(self, key: str) -> list[int]:
        return [metrics["epoch"] for metrics in self.reports[key]]


class StopWorse(StoppingRule):
    """Stops what is below a level after the first epoch, so that a test needs no second arm to compare with."""

    def __init__(self, level: float) -> None:
        self._level = level

    def build(self, *, metric: str, mode: str, num_epochs: int) -> Any:
        return self

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        pass

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return "STOP" if result[METRIC] / result["epoch"] < self._level else "CONTINUE"


@pytest.fixture
def sweep(ray_cluster, tmp_path):
    """Run a sweep; ``special`` holds what is added to the payload of single runs."""

    def run(function, arms: Arms, *, special: dict[str, dict[str, Any]] | None = None, listener=None, **options):
        diary = listener or Diary()
        special = special or {}

        def payload(planned_run: PlannedRun) -> dict[str, Any]:
            common = {"key": planned_run.key, "notes": str(tmp_path), "epochs": EPOCHS, "level": 1.0}
            return common | special.get(planned_run.key, {})

        defaults: dict[str, Any] = {"first": [], "demand": Demand(), "mode": "max", "num_epochs": EPOCHS}
        sweep_engine.run(
            function,
            cluster=ray_cluster,
            proposer=arms,
            payload=payload,
            listeners=[diary],
            metric=METRIC,
            **(defaults | options),
        )
        return diary

    return run


def notes(folder: Path, key: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{key}-*.json"))]


@pytest.mark.ray
def test_a_sweep_with_controls_a_stopped_arm_and_a_finished_one(sweep, tmp_path):
    arms = Arms([planned("bad", 0), planned("bad", 1)], [planned("good", 0), planned("good", 1)])
    slow = {"epochs": 1000, "seconds": 0.1}
    diary = sweep(
        toy_training.climb,
        arms,
        first=[planned("alone", 0), planned("alone", 1)],
        special={"good0": {"level": 3.0}, "good1": {"level": 5.0}, "bad0": slow, "bad1": slow},
        stopping_rule=StopWorse(3.0),
    )
    assert set(diary.started_keys[:2]) == {"alone0", "alone1"}
    assert {diary.results[key]["status"] for key in ("alone0", "alone1", "good0", "good1")} == {"finished"}
    assert [metrics[METRIC] for metrics in diary.reports["good1"]] == [5.0, 10.0, 15.0]
    for key in ("bad0", "bad1"):
        # The runs came to their own end: the result is theirs and says how far they had come.
        assert diary.results[key] == {"status": "stopped", "epochs": diary.epochs(key)[-1]}
        assert diary.epochs(key)[-1] < 1000
    assert arms.heard == {"bad": "stopped", "good": 12.0}
    seen = [note for key in diary.results for note in notes(tmp_path, key)]
    assert len({note["pid"] for note in seen}) <= 2  # a process goes on to the next run
    assert {note["cwd"] for note in seen} == {str(Path.cwd())}


@pytest.mark.slow
@pytest.mark.ray
def test_failing_runs_are_recorded_with_their_reason_and_the_sweep_goes_on(sweep, tmp_path):
    keys = ("error", "configuration", "nan", "reborn", "dead", "well")
    arms = Arms(*([planned(key)] for key in keys))
    special: dict[str, dict[str, Any]] = {f"{key}0": {"wrong": key} for key in ("error", "configuration", "nan")}
    special |= {"reborn0": {"wrong": "death", "deaths": 1}, "dead0": {"wrong": "death", "deaths": 9}}
    diary = sweep(toy_training.stumble, arms, special=special, max_failures=1)
    reasons = {key: result.get("reason") for key, result in diary.results.items()}
    assert reasons["error0"] == "RuntimeError: the disk is full"
    assert reasons["configuration0"] == "ValueError: lr: must be above 0"
    assert reasons["nan0"] == "val/accuracy is nan after epoch 1"
    assert reasons["dead0"] is not None
    assert "died" in reasons["dead0"]
    assert {key for key, result in diary.results.items() if result["status"] == "finished"} == {"reborn0", "well0"}
    # A process that dies is tried again once; what can't go better a second time isn't.
    assert len([note for note in notes(tmp_path, "dead0") if "epoch" in note]) == 2
    assert diary.epochs("reborn0") == [1, 1, 2, 3]
    assert all(math.isnan(arms.heard[key]) for key in ("error", "configuration", "nan", "dead"))


@pytest.mark.ray
def test_an_interrupt_ends_the_sweep_and_resuming_runs_the_rest(sweep, tmp_path):
    class Interrupting(Diary):
        def reported(self, run: PlannedRun, metrics) -> None:
            super().reported(run, metrics)
            if run.key == "b0":
                signal.raise_signal(signal.SIGINT)

    diary = Interrupting()
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        sweep(
            toy_training.climb,
            Arms([planned("a")], [planned("b")], [planned("c")]),
            special={"b0": {"epochs": 1000, "seconds": 0.1}},
            max_concurrent=1,
            listener=diary,
        )
    assert signal.getsignal(signal.SIGINT) is handler
    assert set(diary.results) == {"a0"}
    assert "c0" not in diary.started_keys
    arms = Arms([planned("a")], [planned("b")], [planned("c")])
    past = [PastRun("a0", diary.reports["a0"], diary.results["a0"]), PastRun("b0", diary.reports["b0"])]
    resumed = sweep(toy_training.climb, arms, special={"b0": {"begun": 1}}, past=past, max_concurrent=1)
    assert set(resumed.results) == {"b0", "c0"}
    assert resumed.epochs("b0") == [2, 3]
    assert arms.heard == {"a": 3.0, "b": 3.0, "c": 3.0}


def test_a_listener_that_fails_ends_the_sweep_with_its_own_error(monkeypatch):
    """Tune wraps what its callbacks raise in an error of its own, which holds only the text."""

    def tune_run(trainable, *, callbacks, search_alg, **options):
        trial = SimpleNamespace(config=search_alg.suggest("trial"))
        try:
            callbacks[0].on_trial_start(0, [], trial)
        except Exception:
            raise TuneError("Traceback ...") from None

    class Broken(Diary):
        def started(self, run: PlannedRun) -> None:
            raise OSError("no space left for the records")

    monkeypatch.setattr("ray.tune.run", tune_run)
    with pytest.raises(OSError, match="no space left for the records"):
        sweep_engine.run(
            toy_training.climb,
            cluster=SimpleNamespace(node_groups=lambda: [NodeGroup({"CPU": 1}, 1)]),
            demand=Demand(),
            first=[planned("a")],
            proposer=Arms(),
            payload=lambda run: {},
            listeners=[Broken()],
            metric=METRIC,
            mode="max",
            num_epochs=1,
        )


@pytest.mark.ray
def test_what_can_never_fit_is_refused_before_anything_starts(sweep, tmp_path):
    with pytest.raises(ValueError, match=r"needs 3 workers of 1 CPU each, but the cluster has at most 2 such places"):
        sweep(toy_training.climb, Arms([planned("a")]), demand=Demand(workers=3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.ray
def test_runs_of_two_workers_train_together_and_a_killed_one_frees_them(sweep, tmp_path):
    """Both CPUs belong to the first run, which doesn't listen and is killed; the second one needs them."""
    arms = Arms([planned("deaf")], [planned("good")])
    diary = sweep(
        toy_training.two_of_a_kind,
        arms,
        special={"deaf0": {"epochs": 1000, "seconds": 0.3, "deaf": True}, "good0": {"level": 5.0}},
        stopping_rule=StopWorse(3.0),
        demand=Demand(workers=2),
    )
    assert diary.results["deaf0"] == {"status": "stopped"}
    assert arms.heard == {"deaf": "stopped", "good": 15.0}
    good = diary.results["good0"]
    assert good["status"] == "finished"
    assert good["total"] == 3.0  # of 1 and 2
    assert good["gradient"] == [[1.5, 1.5]]  # the mean of the ranks' gradients, which are 1 and 2
    assert (good["wrapped"], good["backend"], good["threads"]) == ("DistributedDataParallel", "gloo", 1)
    assert diary.epochs("good0") == [1, 2, 3]
    assert {(note["rank"], note["world"]) for note in notes(tmp_path, "good0")} == {(0, 2), (1, 2)}
