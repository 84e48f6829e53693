"""The folder of one experiment: who it is, what its runs reported, how they ended."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.config import PlannedRun, UserError, differing_keys
from orchestrator.past_run import PastRun
from orchestrator.storage import Storage

EXPERIMENT = "experiment.json"
RUNS = "runs.jsonl"
HISTORY = "history.jsonl"
ARMS = "arms.jsonl"
RUNS_FOLDER = "runs"


class Outputs:
    """What a driver writes down about an experiment, so that it can be resumed and compared.

    The files lie in ``<storage>/<name>/``. Storage behind a URI cannot be appended to: then they lie in the user's
    home folder too, and are copied to the storage whenever a run ends.

    Args:
        storage: folder or URI of all experiments.
        name: of this one.
    """

    def __init__(self, storage: str, name: str) -> None:
        self.root = Storage(storage)
        self.remote = self.root.child(name)
        self.name = name
        self.folder = self.remote.path if self.remote.is_local else _beside(self.root.uri) / name
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.remote.is_local:
            for file in (EXPERIMENT, ARMS, RUNS, HISTORY):
                if self.remote.exists(file) and not (self.folder / file).exists():
                    self.remote.download(file, self.folder / file)

    @property
    def driver_root(self) -> Path:
        """The folder on this machine in which MLflow's default store lies."""
        return self.folder.parent

    def run_directory(self, key: str) -> str:
        """Return path or URI of a run's own folder."""
        return self.remote.child(RUNS_FOLDER, key).uri

    def claim(self, experiment: Mapping[str, Any], *, resume: bool) -> None:
        """Make this the folder of ``experiment``, or find that it already is.

        Raises:
            UserError: it belongs to another configuration, or to this one and ``resume`` is not given.
        """
        present = self.experiment()
        if present is None:
            self.describe(experiment)
            return
        differing = differing_keys(present["config"], experiment["config"])
        if differing:
            shown = "\n".join(f"  {key}: {old} there, {new} here" for key, (old, new) in differing.items())
            raise UserError(
                [
                    f"{self.folder} holds an experiment with another configuration:\n{shown}\n"
                    "give this one another name (name=...), or restore the file to resume that one"
                ]
            )
        if not resume:
            num_ended = len(self.past_results())
            raise UserError(
                [
                    f"{self.folder} exists already, with {num_ended} runs ended: add --resume to continue it, "
                    "or give this one another name (name=...)"
                ]
            )

    def describe(self, experiment: Mapping[str, Any]) -> None:
        """Write ``experiment.json``."""
        _replace(self.folder / EXPERIMENT, json.dumps(experiment, indent=1))
        self._copy(EXPERIMENT)

    def note_teachers(self, teachers: Mapping[str, Mapping[str, Any]]) -> None:
        """Write into ``experiment.json`` which teachers the runs rest on, and which data.

        Args:
            teachers: the stored result of each teacher, by fingerprint.
        """
        data = {result["data_fingerprint"] for result in teachers.values()}
        fingerprints = {
            "teacher_fingerprint": ", ".join(sorted(teachers)),
            "data_fingerprint": ", ".join(sorted(data)),
        }
        self.describe((self.experiment() or {}) | fingerprints)

    def experiment(self) -> dict[str, Any] | None:
        """Return what ``experiment.json`` holds, or ``None``."""
        path = self.folder / EXPERIMENT
        return json.loads(path.read_text()) if path.exists() else None

    def proposed(self, assignment: Mapping[str, Any]) -> None:
        """Note an arm that was sampled, before it runs."""
        _append(self.folder / ARMS, assignment)
        self._copy(ARMS)

    def past_arms(self) -> list[dict[str, Any]]:
        """Return the assignments of all arms that were sampled, in order."""
        return list(_lines(self.folder / ARMS))

    def reported(self, key: str, metrics: Mapping[str, Any]) -> None:
        """Note one epoch's report of a run."""
        _append(self.folder / HISTORY, {"key": key, **metrics})

    def ended(self, record: Mapping[str, Any]) -> None:
        """Note how a run ended."""
        _append(self.folder / RUNS, record)
        self._copy(RUNS)
        self._copy(HISTORY)

    def past_results(self) -> dict[str, dict[str, Any]]:
        """Return the records of all runs that ended, by key; the newest record of a run counts."""
        return {record["key"]: record for record in _lines(self.folder / RUNS)}

    def past_runs(self) -> list[PastRun]:
        """Return every run of earlier sessions; a failed one is to be tried again."""
        history: dict[str, dict[int, dict[str, Any]]] = {}
        for line in _lines(self.folder / HISTORY):
            history.setdefault(line["key"], {})[line["epoch"]] = line
        results = {key: record["result"] for key, record in self.past_results().items()}
        ended = {key: result for key, result in results.items() if result["status"] != "failed"}
        return [
            PastRun(key=key, history=[epochs[epoch] for epoch in sorted(epochs)], result=ended.get(key))
            for key, epochs in {**{key: {} for key in results}, **history}.items()
        ]

    def ended_of(
        self, runs: Iterable[PlannedRun]
    ) -> Iterator[tuple[PlannedRun, dict[str, Any], Sequence[Mapping[str, Any]]]]:
        """Give result and history of each of these runs that ended for good in an earlier session, each once."""
        planned = {run.key: run for run in runs}
        for past in self.past_runs():
            if past.key in planned and past.result is not None:
                yield planned[past.key], dict(past.result), past.history

    def _copy(self, name: str) -> None:
        if not self.remote.is_local and (self.folder / name).exists():
            self.remote.upload(self.folder / name, name)


def _beside(uri: str) -> Path:
    """Return the folder of this machine that stands for a storage behind a URI."""
    return Path.home() / ".distillery" / hashlib.sha256(uri.encode()).hexdigest()[:8]


def _append(path: Path, record: Mapping[str, Any]) -> None:
    """Append one line, whole and on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Give the records of a file; a line that a crash tore is passed over, its run goes on from its checkpoint."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _replace(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
