"""Writes the records of made-up sweeps, as a real sweep leaves them behind."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class Sweep:
    """A made-up experiment folder, one line of ``runs.jsonl`` a call."""

    folder: Path
    details: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def add(
        self,
        aggregator: str,
        paths: str,
        seed: int,
        value: float | None,
        *,
        context: dict[str, Any] | None = None,
        status: str = "finished",
        test: float | dict[str, float] | None = None,
        held_out: float = 0.0,
        **result: Any,
    ) -> str:
        """Add a run: ``paths`` as ``a+b``, empty for the student alone; returns its key."""
        names = sorted(paths.split("+")) if paths else []
        arm = f"{aggregator}/{'+'.join(names)}" if names else "alone"
        if context:
            arm += " " + " ".join(f"{key.rpartition('.')[2]}={entry}" for key, entry in context.items())
        key = f"{arm} s{seed}"
        validation = (
            None if value is None or self.details.get("protocol") == "paper" else {"accuracy": value, "loss": 1.0}
        )
        record = {
            "key": key,
            "name": key,
            "arm": arm,
            "aggregator": aggregator if names else "none",
            "paths": names,
            "seed": seed,
            "kind": "run" if names else "student",
            "context": context or {},
            "config_hash": "0",
            "held_out": held_out,
            "run_id": f"{abs(hash(key)):032x}"[:32],
            "result": {
                "status": status,
                "epochs": 20,
                "steps": 640,
                "minutes": 0.5 + 0.1 * len(names),
                "validation": validation,
                "test": test if isinstance(test, dict) else {"accuracy": value if test is None else test, "loss": 1.0},
                "teacher": {
                    "validation": None if validation is None else {"accuracy": 95.4},
                    "test": {"accuracy": 95.0},
                },
                **result,
            },
        }
        self.lines.append(json.dumps(record))
        return key

    def save(self) -> Path:
        """Write the folder and return it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        details = {
            "name": self.folder.name,
            "config": {"search": {"seed": {"grid": [0, 1, 2]}}},
            "config_hash": "f00d",
            "metric": "val/accuracy",
            "mode": "max",
            "protocol": "holdout",
            "planned": len(self.lines),
            "created": "2026-01-01T00:00:00Z",
            "git": "0123abc",
            "versions": {"torch": "2.14.1"},
            "data_fingerprint": "da7a",
            "teacher_fingerprint": "7eac",
            "paths": {},
            "teacher_label": "ResNet20",
            "student_label": "ResNet8",
            "data_label": "Digits",
            **self.details,
        }
        (self.folder / "experiment.json").write_text(json.dumps(details))
        (self.folder / "runs.jsonl").write_text("".join(f"{line}\n" for line in self.lines))
        return self.folder


@dataclass(frozen=True)
class PlannedCell:
    """A planned run, as far as the comparison looks at it."""

    arm: str
    aggregator: str
    paths: tuple[str, ...]
    seed: int
    kind: str = "run"
    context: dict[str, Any] = field(default_factory=dict)


def _plan(sets: list[str], *, aggregators: list[str], num_seeds: int) -> list[PlannedCell]:
    """The student alone and every aggregator x path set, ``a+b`` each, on every seed."""
    arms = [("alone", "none", "")] + [(f"{label}/{names}", label, names) for label in aggregators for names in sets]
    return [
        PlannedCell(name, label, tuple(sorted(names.split("+"))) if names else (), seed, "run" if names else "student")
        for name, label, names in arms
        for seed in range(num_seeds)
    ]


@pytest.fixture
def plan() -> Callable[..., list[PlannedCell]]:
    """Plans a full grid: ``plan(["a", "a+b"], aggregators=["equal"], num_seeds=2)``."""
    return _plan


@pytest.fixture
def cell() -> type[PlannedCell]:
    """One planned run."""
    return PlannedCell


@pytest.fixture(scope="session")
def sweep_type() -> type[Sweep]:
    """Makes experiments that several tests share."""
    return Sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """An empty experiment called ``digits`` on seeds 0, 1 and 2."""
    return Sweep(tmp_path / "outputs" / "digits")
