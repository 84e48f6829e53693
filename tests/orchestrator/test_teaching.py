import json
from pathlib import Path

import pytest
import torch

from orchestrator.config import Experiment, load
from orchestrator.config.design import Design
from orchestrator.storage import Storage
from orchestrator.teachers import TeacherError, prepare_teachers
from orchestrator.teaching import fingerprint, load_teacher, teacher_config, teacher_directory, teacher_job

FILE = Path(__file__).with_name("small_experiment.yaml")


def experiment(tmp_path: Path, *settings: str) -> Experiment:
    return load(FILE, [f"run.storage={tmp_path}", *settings])


def configs(tmp_path: Path, *settings: str) -> list[dict]:
    return [run.config for run in Design(experiment(tmp_path, *settings)).planned()]


def test_all_runs_of_a_sweep_share_one_teacher(tmp_path):
    assert len({fingerprint(config) for config in configs(tmp_path)}) == 1


@pytest.mark.parametrize(
    ("setting", "is_other"),
    [
        ("teacher.train.epochs=3", True),
        ("teacher.model.width=16", True),
        ("teacher.seed=1", True),
        ("data.split.seed=1", True),
        ("student.model.width=8", False),
        ("train.epochs=5", False),
        ("train.eval_batch_size=7", False),
        ("train.checkpoint_every=2", False),
        ("train.log_every=3", False),
        ("teacher.train.batch_size=16", True),
        ("run.max_concurrent=1", False),
    ],
)
def test_the_fingerprint_is_that_of_what_produces_the_weights(tmp_path, setting, is_other):
    before, after = configs(tmp_path)[0], configs(tmp_path, setting)[0]
    assert (fingerprint(before) != fingerprint(after)) is is_other


def test_a_backbone_with_weights_makes_another_teacher_that_is_trained_all_the_same(tmp_path):
    config = configs(tmp_path)[0]
    given = {**config, "teacher": config["teacher"] | {"weights_backbone": "DEFAULT"}}
    older = {
        **config,
        "teacher": {key: config["teacher"][key] for key in config["teacher"] if key != "weights_backbone"},
    }
    assert fingerprint(older) == fingerprint(config) != fingerprint(given)
    assert teacher_config(given)["student"]["weights_backbone"] == "DEFAULT"
    assert teacher_config(given)["train"]["epochs"] == teacher_config(config)["train"]["epochs"] > 0


def test_a_checkpoint_is_known_by_its_content(tmp_path):
    checkpoint = tmp_path / "teacher.pt"
    config = configs(tmp_path)[0]
    config["teacher"] |= {"checkpoint": str(checkpoint), "train": None}
    checkpoint.write_bytes(b"one")
    first = fingerprint(config)
    checkpoint.write_bytes(b"two")
    assert fingerprint(config) != first
    assert teacher_config(config)["train"]["epochs"] == 0


class Runs:
    """Stands in for a host: notes what is asked for, and writes what a teacher's run would leave."""

    def __init__(self, status="finished"):
        self.keys = []
        self.status = status

    def __call__(self, runs, jobs, listener):
        for key, run in runs.items():
            self.keys.append(key)
            listener.started(run)
            if self.status == "finished":
                result = {"validation": {"accuracy": 90.0}, "test": {"accuracy": 89.0}, "data_fingerprint": "d"}
                Storage(jobs[key].directory).write_text("result.json", json.dumps(result))
            listener.ended(run, {"status": self.status, "reason": "no memory"})


def test_a_teacher_is_made_once_and_reused(tmp_path):
    storage, runs, said = Storage(str(tmp_path)), Runs(), []
    for _ in range(2):
        prepare_teachers(configs(tmp_path), storage, run_jobs=runs, mirror=None, say=said.append)
    assert len(runs.keys) == 1
    assert any("trained" in line and "90.00" in line for line in said)
    assert any("reused" in line for line in said)


def test_a_teacher_that_fails_stops_everything(tmp_path):
    with pytest.raises(TeacherError, match="no memory"):
        prepare_teachers(
            configs(tmp_path), Storage(str(tmp_path)), run_jobs=Runs("failed"), mirror=None, say=lambda line: None
        )


def test_damaged_weights_of_a_teacher_are_refused(tmp_path):
    job = teacher_job(configs(tmp_path)[0], Storage(str(tmp_path)))
    folder = Storage(job.directory)
    torch.save({"weight": torch.ones(2)}, tmp_path / "weights")
    folder.upload(tmp_path / "weights", "student.pt")
    folder.write_text("result.json", json.dumps({"files": {"student.pt": "0" * 64}, "validation": None, "test": {}}))
    with pytest.raises(ValueError, match="damaged"):
        load_teacher(job.directory)


def test_a_run_without_a_teacher_has_no_directory(tmp_path):
    config = configs(tmp_path)[0] | {"teacher": None}
    assert teacher_directory(config, Storage(str(tmp_path))) is None
