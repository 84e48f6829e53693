from __future__ import annotations

import io

import pytest

from orchestrator.config.planned_run import PlannedRun
from orchestrator.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def planned(arm: str, seed: int, *, kind: str = "run", epochs: int = 2, **context) -> PlannedRun:
    return PlannedRun(
        key=f"{arm}-{seed}-{context}",
        name=f"{arm} s{seed}",
        arm=arm,
        aggregator="none",
        paths=(),
        seed=seed,
        kind=kind,
        context=context,
        config={"train": {"epochs": epochs}},
        config_hash="",
    )


def report(epoch: int, accuracy: float) -> dict[str, float]:
    return {"epoch": epoch, "val/accuracy": accuracy}


@pytest.fixture
def clock():
    return Clock()


def run_through(progress: Progress, clock: Clock, run: PlannedRun, *values: float, status: str = "finished") -> None:
    progress.started(run)
    for epoch, value in enumerate(values, start=1):
        clock.now += 30
        progress.reported(run, report(epoch, value))
    progress.ended(run, {"status": status, "reason": "RuntimeError: the disk is full"})


def test_plain_lines_say_what_ended(clock):
    stream = io.StringIO()
    progress = Progress(stream, metric="val/accuracy", num_runs=4, clock=clock)
    run_through(progress, clock, planned("alone", 0, kind="student"), 70, 80)
    run_through(progress, clock, planned("equal", 0), 71, 82.5)
    run_through(progress, clock, planned("adaptive", 0), 75, status="stopped")
    run_through(progress, clock, planned("fixed", 0), status="failed")
    progress.close()
    assert stream.getvalue().splitlines() == [
        "[1/4] alone s0: val/accuracy 80.00, 60 s; best so far alone 80.00; about 3.0 min left",
        "[2/4] equal s0: val/accuracy 82.50, gain +2.50, 60 s; best so far equal 82.50; about 2.0 min left",
        "[3/4] adaptive s0: val/accuracy 75.00, gain +5.00, 30 s, stopped after epoch 1/2; best so far equal 82.50; "
        "about 50 s left",
        "[4/4] fixed s0: failed: RuntimeError: the disk is full",
        "4 runs ended in 2.5 min: 2 finished, 1 stopped, 1 failed",
    ]


def test_a_smaller_metric_can_be_the_better_one(clock):
    stream = io.StringIO()
    progress = Progress(stream, metric="val/loss", mode="min", clock=clock)
    for run, value in ((planned("alone", 0, kind="student"), 1.0), (planned("a", 0), 0.75), (planned("b", 0), 1.5)):
        progress.started(run)
        progress.reported(run, {"epoch": 2, "val/loss": value})
        progress.ended(run, {"status": "finished"})
    lines = stream.getvalue().splitlines()
    assert lines[1] == "[2] a s0: val/loss 0.75, gain +0.25, 0 s; best so far a 0.75"
    assert lines[2] == "[3] b s0: val/loss 1.50, gain -0.50, 0 s; best so far a 0.75"


def test_the_gain_is_over_the_control_of_the_same_seed_and_context(clock):
    stream = io.StringIO()
    progress = Progress(stream, metric="val/accuracy", clock=clock)
    run_through(progress, clock, planned("alone", 1, kind="student"), 1, 10)
    run_through(progress, clock, planned("alone lr=1", 0, kind="student", lr=1), 1, 50)
    run_through(progress, clock, planned("alone lr=2", 0, kind="student", lr=2), 1, 60)
    run_through(progress, clock, planned("a lr=2", 0, lr=2), 1, 61)
    run_through(progress, clock, planned("a lr=2", 2, lr=2), 1, 61)
    lines = stream.getvalue().splitlines()
    assert "gain +1.00" in lines[3]
    assert "gain" not in lines[4]


def test_the_best_arm_is_the_best_mean_of_its_seeds(clock):
    stream = io.StringIO()
    progress = Progress(stream, metric="val/accuracy", clock=clock)
    run_through(progress, clock, planned("a", 0), 1, 90)
    run_through(progress, clock, planned("a", 1), 1, 70)
    run_through(progress, clock, planned("b", 0), 1, 85)
    assert "best so far b 85.00" in stream.getvalue().splitlines()[-1]
    run_through(progress, clock, planned("b", 1), 1, 80)
    assert "best so far b 82.50, mean of 2 seeds" in stream.getvalue().splitlines()[-1]


def test_a_terminal_shows_a_table_at_most_every_two_seconds(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    progress = Progress(stream, metric="val/accuracy", num_runs=2, clock=clock)
    first, second = planned("adaptive/soft_target", 0), planned("equal", 1)
    progress.started(first)
    progress.started(second)
    drawn = stream.getvalue()
    assert drawn.count("epoch") == 1
    clock.now += 1.9
    progress.reported(first, report(1, 81.25))
    assert stream.getvalue() == drawn
    clock.now += 0.2
    progress.reported(second, report(1, 7))
    table = stream.getvalue().removeprefix(drawn)
    assert table.startswith("\x1b[3F\x1b[J")
    assert table.removeprefix("\x1b[3F\x1b[J").splitlines() == [
        "  arm                   seed    epoch  val/accuracy    gain",
        "  adaptive/soft_target     0      1/2         81.25        ",
        "  equal                    1      1/2          7.00        ",
        "  0 of 2 ended, 2 running; about 2 s left",
    ]


def test_on_a_terminal_the_lines_of_ended_runs_stay_above_the_table(clock):
    stream = Terminal()
    progress = Progress(stream, metric="val/accuracy", num_runs=2, clock=clock)
    run_through(progress, clock, planned("a", 0), 1, 50)
    progress.close()
    screen: list[str] = []
    for line in stream.getvalue().split("\n"):
        while line.startswith("\x1b["):
            up, _, line = line.removeprefix("\x1b[").partition("F\x1b[J")
            del screen[len(screen) - int(up) :]
        screen.append(line)
    assert [line.split(":")[0] for line in screen if line] == ["[1/2] a s0", "1 run ended in 60 s"]


def test_long_lines_are_cut_to_the_terminal(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    progress = Progress(stream, metric="val/accuracy", clock=clock)
    progress.started(planned("x" * 200, 0))
    assert max(map(len, stream.getvalue().splitlines())) == 39


def test_earlier_runs_count_but_take_no_time(clock):
    stream = io.StringIO()
    progress = Progress(stream, metric="val/accuracy", num_runs=3, clock=clock)
    control = planned("alone", 0, kind="student")
    progress.recall(control, history=[report(1, 40), report(2, 50)], status="finished")
    run_through(progress, clock, planned("a", 0), 1, 51)
    progress.started(planned("b", 0))
    progress.close()
    assert stream.getvalue().splitlines() == [
        "[2/3] a s0: val/accuracy 51.00, gain +1.00, 60 s; best so far a 51.00; about 60 s left",
        "2 runs ended (1 of them earlier) in 60 s: 2 finished, 1 interrupted",
    ]


def test_a_run_without_validation_has_a_line_too(clock):
    stream = io.StringIO()
    progress = Progress(stream, metric="val/accuracy", clock=clock)
    run = planned("a", 0)
    progress.started(run)
    progress.reported(run, {"epoch": 1})
    progress.ended(run, {"status": "finished"})
    assert stream.getvalue() == "[1] a s0: 0 s\n"
