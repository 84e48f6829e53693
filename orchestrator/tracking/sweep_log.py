"""What a sweep tells MLflow, in the sweep's own words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.ranking import Ranking
from orchestrator.shared_view import arranged_views, experiment_note
from orchestrator.tracking.keyed_run import KeyedRun
from orchestrator.tracking.planned_run import PlannedRun
from orchestrator.tracking.tracker import Status, Tracker
from orchestrator.tracking.vocabulary import epoch_metrics, flat_params, gain_metrics, result_metrics, run_params

SWEEP = "sweep"
_WEIGHT = "train/weight/"
_STATUS: dict[str, Status] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


@dataclass(frozen=True)
class _Ended:
    run: PlannedRun
    result: Mapping[str, Any]


class SweepLog:
    """Writes a sweep, or a single run, to a tracker under the project's names.

    One MLflow run for the sweep, with one child for each run (MLflow draws one level). A single run has no parent:
    leave out :meth:`start`.

    Args:
        tracker: where to.
        experiment: what ``experiment.json`` holds: name, config, config_hash, metric, mode, protocol, git, versions,
            fingerprints, paths, and the labels of teacher, student and data.
        source: name of the experiment file, for MLflow's column Source.
    """

    def __init__(self, tracker: Tracker, experiment: Mapping[str, Any], *, source: str) -> None:
        self._tracker = tracker
        self._experiment = experiment
        self._ranking = Ranking.of(experiment)
        self._source = source
        self._parent: str | None = None
        self._ended: defaultdict[int, list[_Ended]] = defaultdict(list)  # by seed, and so are the students alone
        self._alone: defaultdict[int, list[_Ended]] = defaultdict(list)
        self._charted: set[str] = set()
        self._pictured: dict[str, None] = {}  # a set that keeps its order

    def start(self) -> None:
        """Open the sweep's own run."""
        config = self._experiment.get("config") or {}
        self._tracker.start_run(
            SWEEP,
            f"sweep {self._experiment['name']}",
            tags=self._tags("sweep"),
            params=flat_params(config) | self._labels(),
        )
        self._arrange(self._path_names())
        self._parent = SWEEP

    def start_run(self, run: PlannedRun) -> None:
        """Open a run."""
        self._tracker.start_run(
            run.key,
            run.name,
            parent=self._parent,
            tags=self._tags(run.kind) | {"arm": run.arm, "seed": str(run.seed), "config_hash": run.config_hash},
            params=run_params(run, path_names=self._path_names(), labels=self._labels()),
        )

    def start_teacher(self, key: str, name: str, *, seed: int, config: Mapping[str, Any]) -> None:
        """Open the run in which the teacher is trained; :meth:`end_teacher` closes it."""
        self._tracker.start_run(
            key,
            name,
            parent=self._parent,
            tags=self._tags("teacher") | {"arm": "teacher", "seed": str(seed)},
            params=flat_params(config) | self._labels() | {"seed": str(seed)},
        )

    def end_teacher(self, key: str, result: Mapping[str, Any]) -> None:
        """Close the teacher's run."""
        self._tracker.results(key, result_metrics(result, self._ranking.name))
        self._name_inputs(key, result)
        self._tracker.end_run(key, _STATUS[result["status"]])

    def epoch(self, key: str, report: Mapping[str, Any]) -> None:
        """Record one epoch's report; its number is the step."""
        metrics = epoch_metrics(report)
        self._tracker.metrics(key, metrics, step=int(report["epoch"]))
        # Layers are known only when a run has paired its taps.
        self._arrange(name.removeprefix(_WEIGHT) for name in metrics if name.startswith(_WEIGHT))

    def end_run(
        self, run: PlannedRun, result: Mapping[str, Any], *, trajectory: Path | None = None, picture: Path | None = None
    ) -> None:
        """Close a run with its result.

        Args:
            run: the run.
            result: its result; ``status`` is ``finished``, ``stopped`` or ``failed``.
            trajectory: its Parquet file of losses and weights.
            picture: a drawing of it.
        """
        self._tracker.results(run.key, result_metrics(result, self._ranking.name))
        self._name_inputs(run.key, result)
        if result.get("reason"):
            self._tracker.tags(run.key, {"reason": str(result["reason"])})
        if trajectory is not None:
            self._tracker.artifact(run.key, trajectory)
        if picture is not None:
            self._tracker.artifact(run.key, picture)
        self._tracker.tags(run.key, {"status": str(result["status"])})
        self._tracker.end_run(run.key, _STATUS[result["status"]])
        self.know(run, result)

    def know(self, run: PlannedRun, result: Mapping[str, Any]) -> None:
        """Take a run's result into account that ended now, or before the sweep was resumed, for the gains of others."""
        if result["status"] != "finished":
            return
        ended = _Ended(run, result)
        self._ended[run.seed].append(ended)
        if run.kind == "student":
            self._alone[run.seed].append(ended)
        for other in self._ended[run.seed] if run.kind == "student" else [ended]:
            alone = self._alone_of(other.run)
            # A run of an earlier session is unknown here when somebody has removed that session's spool.
            if alone is not None and self._tracker.knows(other.run.key):
                self._tracker.results(other.run.key, gain_metrics(other.result, alone.result, self._ranking))

    def answer(
        self,
        sentence: str,
        table_markdown: str,
        *,
        columns: Sequence[str] = (),
        rows: Sequence[Sequence[Any]] = (),
        effects: Mapping[str, float] | None = None,
        pictures: Mapping[str, Path] | None = None,
    ) -> None:
        """Store what the comparison found where the MLflow UI shows it first.

        Args:
            sentence: the answer; the experiment's note begins with it.
            table_markdown: the comparison's table.
            columns: names of the columns of the table of arms, stored as ``arms.json``.
            rows: its rows.
            effects: results of the sweep itself, such as ``path_effect/<path>``.
            pictures: drawings for the chart view by their key, such as ``compare/path_effect``.
        """
        note = {"mlflow.note.content": experiment_note(sentence, table_markdown)}
        self._tracker.experiment_tags(note)
        self._tracker.tags(SWEEP, note | {"answer": sentence})
        if rows:
            self._tracker.table(SWEEP, columns, rows, "arms.json")
        if effects:
            self._tracker.results(SWEEP, effects)
        for image_key, png_file in (pictures or {}).items():
            self._tracker.image(SWEEP, png_file, image_key)
        self._arrange([], pictures or {})

    def best_student(self, run: KeyedRun, directory: Path, result: Mapping[str, Any]) -> None:
        """Store the best student's model folder (see ``save_student_model``) with what it reached."""
        self._tracker.model(run.key, directory, metrics=result_metrics(result, self._ranking.name))

    def end(self, status: Status) -> None:
        """Close the sweep's own run."""
        self._tracker.end_run(SWEEP, status)

    def _alone_of(self, run: PlannedRun) -> _Ended | None:
        """Return the student alone of the same seed that shares most of the other varied keys."""
        fitting = [
            alone
            for alone in self._alone[run.seed]
            if all(run.context.get(key, value) == value for key, value in alone.run.context.items())
        ]
        return max(fitting, key=lambda alone: len(alone.run.context), default=None)

    def _arrange(self, names: Iterable[str], pictures: Iterable[str] = ()) -> None:
        """Have charts for these paths, layers and pictures, too."""
        before = len(self._charted) + len(self._pictured)
        self._charted |= set(names)
        self._pictured |= dict.fromkeys(pictures)
        if len(self._charted) + len(self._pictured) > before:
            views = arranged_views(sorted(self._charted), metric=self._ranking.name, picture_keys=list(self._pictured))
            self._tracker.experiment_tags(views)

    def _name_inputs(self, key: str, result: Mapping[str, Any]) -> None:
        """Say which data and which teacher a run had; known for sure only when it ended."""
        data = result.get("data_fingerprint")
        teacher = (result.get("teacher") or {}).get("fingerprint")
        marks = {"data_fingerprint": data, "teacher_fingerprint": teacher}
        self._tracker.tags(key, {name: str(mark) for name, mark in marks.items() if mark})
        if data:
            self._tracker.dataset(key, str(self._experiment.get("data_label") or "data"), str(data), "train")

    def _path_names(self) -> list[str]:
        return sorted(self._experiment.get("paths") or {})

    def _labels(self) -> dict[str, str]:
        names = {"teacher": "teacher_label", "student": "student_label", "dataset": "data_label"}
        return {name: str(self._experiment[key]) for name, key in names.items() if self._experiment.get(key)}

    def _tags(self, kind: str) -> dict[str, str]:
        known = {
            "design": self._experiment.get("config_hash"),
            "protocol": self._experiment.get("protocol"),
            "data_fingerprint": self._experiment.get("data_fingerprint"),
            "teacher_fingerprint": self._experiment.get("teacher_fingerprint"),
            "git_revision": self._experiment.get("git"),
            "mlflow.source.git.commit": self._experiment.get("git"),
            "versions": " ".join(f"{k} {v}" for k, v in (self._experiment.get("versions") or {}).items()),
            "mlflow.source.name": self._source,
            "mlflow.source.type": "LOCAL",
        }
        return {"kind": kind} | {name: str(value) for name, value in known.items() if value}
