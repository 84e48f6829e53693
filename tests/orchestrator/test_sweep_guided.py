"""Real sweeps whose arms are stopped early, or proposed while others run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from orchestrator.compare import compare
from orchestrator.config import load
from orchestrator.sweep import sweep

pytestmark = [pytest.mark.slow, pytest.mark.ray]

COMMON = """
data: {use: Digits, split: {train: 512, validation: 200, teacher: rest}}
teacher: {model: {use: ResNet8, width: 8}, train: {epochs: 2}}
student: {model: {use: ResNet8, width: 4}}
paths: {soft_target: {use: SoftTarget}}
aggregator: {use: Equal}
"""
EPOCHS = 16
STOPPED = f"""
train: {{epochs: {EPOCHS}, batch_size: 64, optimizer: {{use: torch.optim.SGD, lr: 0.1, momentum: 0.9}}}}
search:
  train.optimizer.lr: {{grid: [0.1, 1.0e-9]}}
  seed: {{grid: [0, 1]}}
run: {{scheduler: {{use: ASHA, grace_period: 2, reduction_factor: 2}}}}
"""
PROPOSED = """
train: {epochs: 1, batch_size: 64, optimizer: {use: torch.optim.SGD, lr: 0.1, momentum: 0.9}}
search:
  train.optimizer.lr: {loguniform: [0.001, 0.2]}
  seed: {grid: [0, 1]}
run: {searcher: optuna, num_arms: 3}
"""


def run(folder: Path, text: str, *settings: str, resume: bool = False) -> list[dict[str, Any]]:
    """Sweep what a file says and return the records."""
    file = folder / "guided.yaml"
    file.write_text(COMMON + text)
    experiment = load(file, [f"run.storage={folder / 'outputs'}", *settings])
    assert sweep(experiment, resume=resume, address=None, dry_run=False) == 0
    return [json.loads(line) for line in (folder / "outputs" / "guided" / "runs.jsonl").read_text().splitlines()]


def test_asha_stops_the_arm_that_cannot_learn_on_all_seeds_and_never_the_student_alone(ray_cluster, tmp_path, capsys):
    """With next to no learning rate nothing is learnt: such an arm falls behind, and so does such a student alone."""
    records = run(tmp_path, STOPPED)
    results = {(record["arm"], record["seed"]): record["result"] for record in records}
    assert len(records) == len(results) == (2 + 2) * 2
    idle = {(arm, seed) for arm, seed in results if "lr=1e-09" in arm}
    alone = {(arm, seed) for arm, seed in results if arm.startswith("alone")}
    assert len(idle & alone) == len(alone - idle) == 2
    stopped = {run for run, result in results.items() if result["status"] == "stopped"}
    assert stopped == idle - alone
    for each in stopped:
        assert 2 <= results[each]["epochs"] < EPOCHS
    for each in set(results) - stopped:
        assert (results[each]["status"], results[each]["epochs"]) == ("finished", EPOCHS)
    comparison = compare(tmp_path / "outputs" / "guided")
    [out] = comparison.incomplete
    assert (out.arm.name, out.state) == (next(iter(stopped))[0], "stopped")
    assert {run.seed for run in out.stopped} == {0, 1}
    assert {arm.runs.arm.name for arm in comparison.arms} == {arm for arm, _ in set(results) - stopped}
    assert "stopped by the scheduler after epoch" in capsys.readouterr().out


def test_optuna_hears_of_each_arm_and_every_arm_runs_on_all_seeds(ray_cluster, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    from orchestrator.config.optuna_proposer import OptunaProposer

    heard: dict[str, float | None] = {}
    tell = OptunaProposer.tell

    def listen(self: OptunaProposer, arm: Any, value: float | None) -> None:
        heard[arm.name] = value
        tell(self, arm, value)

    monkeypatch.setattr(OptunaProposer, "tell", listen)
    records = run(tmp_path, PROPOSED)
    arms: dict[str, dict[int, dict[str, Any]]] = {}
    for record in records:
        arms.setdefault(record["arm"], {})[record["seed"]] = record
    assert len(records) == (1 + 3) * 2
    assert len(arms) == 1 + 3
    assert all(set(seeds) == {0, 1} for seeds in arms.values())
    assert all(record["result"]["status"] == "finished" for record in records)
    proposed = {name: seeds for name, seeds in arms.items() if name != "alone"}
    rates = [seeds[0]["assignment"]["train.optimizer.lr"] for seeds in proposed.values()]
    assert len(set(rates)) == 3
    assert all(0.001 <= rate <= 0.2 for rate in rates)
    assert all(seeds[0]["assignment"] == seeds[1]["assignment"] for seeds in proposed.values())
    assert heard == {
        name: pytest.approx(math.fsum(seeds[seed]["result"]["validation"]["accuracy"] for seed in (0, 1)) / 2)
        for name, seeds in proposed.items()
    }
    assert len((tmp_path / "outputs" / "guided" / "arms.jsonl").read_text().splitlines()) == 3
    # One more arm: the three that ran are taken over, and Optuna is told of them.
    before = heard.copy()
    heard.clear()
    more = run(tmp_path, PROPOSED, "run.num_arms=4", resume=True)
    assert more[: len(records)] == records
    assert len(more) == len(records) + 2
    assert {name: heard[name] for name in before} == before
    assert len(heard) == 4
