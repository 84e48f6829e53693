"""MLflow, seen as things that may be done twice."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from orchestrator.tracking.operation import MAX_METRICS_PER_BATCH, MAX_PARAMS_OR_TAGS_PER_BATCH
from orchestrator.tracking.refusal_error import RefusalError
from orchestrator.tracking.target import Target

KEY_TAG = "distillery.run"
_PARENT_TAG = "mlflow.parentRunId"
# The pictures of the chart view are the small ones; MLflow's own are 256 pixels wide, in which no text can be read.
_PREVIEW_PIXELS = 1000


class Store:
    """The experiment of a target; every method may be repeated without changing what MLflow holds.

    Uses the client with explicit run ids only: MLflow's active run is a global of the process.

    Args:
        target: the store and the experiment's name.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._client = MlflowClient(target.tracking_uri)
        self.experiment_id = ""

    def find_experiment(self) -> str | None:
        """Return the experiment's id, or ``None`` if there is none."""
        experiment = self._client.get_experiment_by_name(self._target.experiment_name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage != "active":
            raise MlflowException(
                f"experiment {experiment.name!r} was deleted in MLflow; "
                f"`mlflow experiments restore -x {experiment.experiment_id}` brings it back"
            )
        self.experiment_id = str(experiment.experiment_id)
        return self.experiment_id

    def create_experiment(self) -> str:
        """Create the experiment and return its id."""
        self.experiment_id = str(
            self._client.create_experiment(
                self._target.experiment_name, artifact_location=self._target.artifact_location
            )
        )
        return self.experiment_id

    def set_experiment_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the experiment."""
        for name, value in tags.items():
            self._client.set_experiment_tag(self.experiment_id, name, value)

    def find_run(self, key: str) -> str | None:
        """Return the run id of one of our keys, also of a run that was deleted in MLflow."""
        runs = self._client.search_runs(
            [self.experiment_id], f"tags.`{KEY_TAG}` = '{key}'", run_view_type=ViewType.ALL, max_results=1
        )
        return str(runs[0].info.run_id) if runs else None

    def create_run(self, key: str, name: str, *, parent_id: str | None, start_time_ms: int) -> str:
        """Create a run that bears our key, and return its id."""
        tags = {KEY_TAG: key} | ({_PARENT_TAG: parent_id} if parent_id else {})
        run = self._client.create_run(self.experiment_id, start_time=start_time_ms, tags=tags, run_name=name)
        return str(run.info.run_id)

    def reopen_run(self, run_id: str, name: str) -> None:
        """Say that a run is running (again)."""
        self._client.update_run(run_id, status="RUNNING", name=name)

    def add_params(self, run_id: str, params: Mapping[str, str]) -> dict[str, str]:
        """Log the parameters that the run lacks; return those that it holds with another value (MLflow keeps those)."""
        present = self._client.get_run(run_id).data.params
        missing = [Param(name, value) for name, value in params.items() if name not in present]
        for batch in _batches(missing, MAX_PARAMS_OR_TAGS_PER_BATCH):
            self._client.log_batch(run_id, params=batch, synchronous=True)
        return {name: value for name, value in params.items() if present.get(name, value) != value}

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        for batch in _batches([RunTag(name, value) for name, value in tags.items()], MAX_PARAMS_OR_TAGS_PER_BATCH):
            self._client.log_batch(run_id, tags=batch, synchronous=True)

    def add_metrics(self, run_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
        """Log points ``(name, value, milliseconds, step)``; MLflow stores equal ones once."""
        for batch in _batches([Metric(*point) for point in points], MAX_METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=batch, synchronous=True)

    def end_run(self, run_id: str, status: str, end_time_ms: int | None = None) -> None:
        """Close a run."""
        self._client.set_terminated(run_id, status=status, end_time=end_time_ms)

    def add_text(self, run_id: str, content: str, artifact_file: str) -> None:
        """Store a text as an artifact."""
        self._client.log_text(run_id, content, artifact_file)

    def add_artifact(self, run_id: str, file: Path, artifact_path: str | None) -> None:
        """Store a file, or a folder with all that is in it, as an artifact."""
        self._client.log_artifact(run_id, str(file), artifact_path)

    def add_table(self, run_id: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], artifact_file: str) -> None:
        """Store a table. Unlike MLflow's own ``log_table``, which appends, this replaces what was there."""
        self.add_text(run_id, json.dumps({"columns": columns, "data": rows}), artifact_file)
        tables = json.loads(self._client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        entry = {"path": artifact_file, "type": "table"}
        if entry not in tables:
            self.set_tags(run_id, {"mlflow.loggedArtifacts": json.dumps([*tables, entry])})

    def add_image(self, run_id: str, png_file: Path, image_key: str, *, step: int) -> None:
        """Store a picture for the chart view.

        Writes the files that ``MlflowClient.log_image`` would write, under names that stay the same: its own hold a
        random part, so that each repetition would add a picture.
        """
        from PIL import Image, UnidentifiedImageError

        identity = hashlib.sha256(f"{image_key} {step}".encode()).hexdigest()[:32]
        stem = f"{image_key.replace('/', '~')}+step+{step}+timestamp+0+{identity}"
        with tempfile.TemporaryDirectory() as folder:
            full, preview = Path(folder, f"{stem}.png"), Path(folder, f"{stem}+compressed.webp")
            shutil.copyfile(png_file, full)
            try:
                with Image.open(full) as image:
                    image.thumbnail((_PREVIEW_PIXELS, _PREVIEW_PIXELS))
                    image.save(preview, quality=90)
            except UnidentifiedImageError as error:
                raise RefusalError(f"{png_file} is no picture") from error
            self._client.log_artifact(run_id, str(full), "images")
            self._client.log_artifact(run_id, str(preview), "images")
        self.set_tags(run_id, {"mlflow.loggedImages": "True"})

    def add_dataset(self, run_id: str, name: str, digest: str, context: str) -> None:
        """Name the data that a run used."""
        dataset = Dataset(name=name, digest=digest, source_type="local", source=json.dumps({"uri": name}))
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def add_model(self, run_id: str, directory: Path, name: str, *, metrics: Mapping[str, float], time_ms: int) -> None:
        """Store a saved model's folder as a logged model of the run."""
        if not (directory / "MLmodel").is_file():
            raise RefusalError(f"{directory} holds no MLflow model")
        model_id = self._find_model(run_id, name)
        if model_id is None:
            model_id = self._client.create_logged_model(self.experiment_id, name=name, source_run_id=run_id).model_id
        outputs = self._client.get_run(run_id).outputs
        # A second link of the same model fails: MLflow keeps them unique without looking first.
        if outputs is None or all(output.model_id != model_id for output in outputs.model_outputs):
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        with tempfile.TemporaryDirectory() as folder:
            # MLflow's own log_model writes both ids into the model's description.
            shutil.copytree(directory, folder, dirs_exist_ok=True)
            description = Path(folder, "MLmodel")
            content = yaml.safe_load(description.read_text(encoding="utf-8"))
            content |= {"model_id": model_id, "run_id": run_id}
            description.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
            self._client.log_model_artifacts(model_id, folder)
        points = [
            Metric(metric, value, time_ms, 0, model_id=model_id, run_id=run_id) for metric, value in metrics.items()
        ]
        if points:
            self._client.log_batch(run_id, metrics=points, synchronous=True)
        self._client.finalize_logged_model(model_id, LoggedModelStatus.READY)

    def _find_model(self, run_id: str, name: str) -> str | None:
        models = self._client.search_logged_models(
            [self.experiment_id], filter_string=f"source_run_id = '{run_id}' AND name = '{name}'", max_results=1
        )
        return str(models[0].model_id) if models else None


def _batches(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
