import json
from pathlib import Path

import pytest
import torch

from distill.host import LocalHost
from orchestrator.config import load
from orchestrator.config.design import Design
from orchestrator.execute import execute
from orchestrator.job import Job
from orchestrator.storage import Storage
from orchestrator.teaching import teacher_directory, teacher_job

FILE = Path(__file__).with_name("small_experiment.yaml")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A storage in which the teacher is ready."""
    root = tmp_path_factory.mktemp("storage")
    execute(teacher_job(config(root), Storage(str(root))).to_dict(), LocalHost(CPU))
    return root


def config(root: Path) -> dict:
    [run] = Design(load(FILE, ["search=null", f"run.storage={root}"])).planned()
    return run.config


def job(root: Path, name: str, **changes: object) -> Job:
    resolved = config(root) | changes
    storage = Storage(str(root))
    return Job(resolved, "hash", storage.child("runs", name).uri, teacher=teacher_directory(config(root), storage))


def test_a_teacher_with_given_weights_is_loaded_evaluated_and_stored_without_training(root, tmp_path):
    trained = Storage(teacher_job(config(root), Storage(str(root))).directory)
    checkpoint = tmp_path / "given.pt"
    trained.download("student.pt", checkpoint)
    given = config(root)
    given["teacher"] |= {"checkpoint": str(checkpoint), "train": None}
    result = execute(teacher_job(given, Storage(str(tmp_path))).to_dict(), LocalHost(CPU))
    assert result["epochs"] == result["steps"] == 0
    assert result["test"]["accuracy"] == pytest.approx(stored_result(trained)["test"]["accuracy"])


def stored_result(storage: Storage) -> dict:
    return json.loads(storage.read_text("result.json"))


def test_the_teachers_weights_come_from_its_store_alone(root):
    """The checkpoint that made the teacher may exist on the driver only."""
    teacher = config(root)["teacher"] | {"checkpoint": "/nowhere/teacher.pt", "train": None}
    result = execute(job(root, "stored", teacher=teacher).to_dict(), LocalHost(CPU))
    assert result["teacher"]["test"]["accuracy"] > 0


def test_a_run_that_was_cut_short_goes_on_from_its_checkpoint(root):
    whole = execute(job(root, "whole").to_dict(), LocalHost(CPU))

    class Killed(Exception):
        pass

    def killed(metrics):
        raise Killed

    with pytest.raises(Killed):
        execute(job(root, "cut").to_dict(), LocalHost(CPU, on_report=killed))
    host = LocalHost(CPU)
    again = execute(job(root, "cut").to_dict(), host)
    assert [report["epoch"] for report in host.history] == [2]
    assert {**again, "minutes": 0} == {**whole, "minutes": 0}
    states = [torch.load(root / "runs" / name / "student.pt", weights_only=True) for name in ("whole", "cut")]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_file_can_ask_a_run_to_look_at_gradients(root, tmp_path):
    settings = ["search=null", f"run.storage={tmp_path}", "train.diagnose={every: 2, scope: taps}"]
    [run] = Design(load(FILE, settings)).planned()
    asked = teacher_job(run.config, Storage(str(root)))
    assert asked.directory == teacher_job(config(root), Storage(str(root))).directory  # the teacher's is the same
    host = LocalHost(CPU)
    execute(job(root, "looking", train=run.config["train"]).to_dict(), host)
    assert "train/cosine/soft_target" in host.history[0]
