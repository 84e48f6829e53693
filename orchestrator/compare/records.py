"""Reads what a sweep left behind: ``experiment.json`` and ``runs.jsonl``."""

from __future__ import annotations

import json
from dataclasses import dataclass

from orchestrator.compare.experiment import Experiment
from orchestrator.compare.folder import Folder
from orchestrator.compare.run_record import RunRecord

EXPERIMENT_FILE = "experiment.json"
RUNS_FILE = "runs.jsonl"


@dataclass(frozen=True)
class Records:
    """The runs of one experiment, one record a run.

    Attributes:
        experiment: what the sweep says about itself.
        runs: the last record of every run, in the order in which the runs first ended.
        damaged: one sentence for each line that could not be read; its run counts as missing.
    """

    experiment: Experiment
    runs: tuple[RunRecord, ...]
    damaged: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Folder) -> Records:
        """Read the folder of one experiment.

        A line torn by a crash is no reason to refuse the rest: it is named in :attr:`damaged`. Of several lines with
        the same key the last one counts, because a resumed sweep appends.

        Raises:
            ValueError: there is no readable ``experiment.json``.
        """
        text = folder.read_text(EXPERIMENT_FILE)
        if text is None:
            raise ValueError(f"{folder.location} holds no {EXPERIMENT_FILE}: it is no folder of an experiment")
        try:
            experiment = Experiment.parse(json.loads(text))
        except ValueError as error:
            raise ValueError(f"{folder.location}/{EXPERIMENT_FILE}: {error}") from None
        runs: dict[str, RunRecord] = {}
        damaged = []
        for number, line in enumerate((folder.read_text(RUNS_FILE) or "").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                record = RunRecord.parse(line)
            except ValueError as error:
                damaged.append(f"line {number} of {RUNS_FILE} is damaged, its run counts as missing: {error}")
                continue
            runs[record.key] = record
        return cls(experiment=experiment, runs=tuple(runs.values()), damaged=tuple(damaged))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that every arm should have: those of the file, else those seen in any record."""
        return self.experiment.seeds or tuple(sorted({record.seed for record in self.runs}))
