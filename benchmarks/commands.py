"""Whole commands, timed from outside: what a user waits for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""Of the repository."""


def timed(command: Sequence[str], *, log: Path, threads: int = 1) -> float:
    """Run a command from the repository's root and return how many seconds it took.

    Args:
        command: program and arguments.
        log: gets what it prints.
        threads: of torch, in each of its processes.

    Raises:
        RuntimeError: it failed; the message ends with what it printed last.
    """
    search_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": search_path}
    started = time.perf_counter()
    with log.open("w") as sink:
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT).returncode
    seconds = time.perf_counter() - started
    if code:
        raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{log.read_text()[-2000:]}")
    return seconds


def distillery(*arguments: str) -> list[str]:
    """Return the command line of our own command, under this Python."""
    return [sys.executable, "-m", "orchestrator", *arguments]


def write_experiment(path: Path, experiment: Mapping[str, Any]) -> Path:
    """Write an experiment file; JSON is YAML."""
    path.write_text(json.dumps(experiment, indent=1))
    return path


def history(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the reports of an experiment's runs, by run, epoch after epoch."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / "history.jsonl").read_text().splitlines():
        report = json.loads(line)
        runs.setdefault(report["key"], []).append(report)
    return runs
