"""Training images that an aggregator holds out: carved out once for all runs, never of validation or test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from distill.data import Digits, Split
from distill.host import LocalHost
from orchestrator import cli
from orchestrator.config import load
from orchestrator.config.design import Design
from orchestrator.execute import execute
from orchestrator.held_out import held_out_share
from orchestrator.job import Job
from orchestrator.preparation import Preparation, prepare
from orchestrator.session import record
from orchestrator.storage import Storage
from orchestrator.store import group_runs
from orchestrator.teaching import teacher_directory, teacher_job

FILE = Path(__file__).with_name("small_experiment.yaml")
LEARNS = "aggregator={use: DistPro, every: 1}"


class Rank(LocalHost):
    """One of several."""

    def __init__(self, rank: int, world_size: int) -> None:
        super().__init__()
        self.rank, self.world_size = rank, world_size


def config(*settings: str) -> dict[str, Any]:
    [run] = Design(load(FILE, ["search=null", *settings])).planned()
    return run.config


def prepared(*settings: str, host: Any = None, role: Any = "trial") -> Preparation:
    return prepare(Job(config(*settings), "", "", role=role), host or LocalHost())


def images(preparation: Preparation) -> tuple[set[int], set[int]]:
    """Return which images are trained on, and which are held out."""
    loaders = preparation.loaders
    held_out = set() if loaders.held_out is None else set(loaders.held_out.subset.indices.tolist())
    return set(loaders.train.subset.indices.tolist()), held_out


def test_images_are_held_out_of_the_training_alone() -> None:
    plain, learning = prepared(), prepared(LEARNS)
    everything, nothing = images(plain)
    training, held_out = images(learning)
    assert not nothing
    assert plain.loaders.held_out is None
    assert training | held_out == everything
    assert not training & held_out
    assert len(held_out) == round(0.2 * 128)
    for name in ("validation", "test"):
        part, other = (set(getattr(each.loaders, name).subset.indices) for each in (plain, learning))
        assert part == other
        assert not part & (training | held_out)
    assert plain.data.fingerprint == learning.data.fingerprint


def test_they_are_the_same_for_all_seeds_of_a_split() -> None:
    first = images(prepared(LEARNS))
    assert images(prepared(LEARNS, "seed=5")) == first
    assert images(prepared(LEARNS, "data.split.seed=1")) != first
    assert Digits(split=Split()).split.seed == 0


def test_a_memory_of_the_training_has_no_room_for_them() -> None:
    learning = prepared(LEARNS, "paths.contrast={use: CRD, num_negatives: 8}")
    assert len(learning.distiller.path("contrast").bank_student) == 128 - 26  # type: ignore[arg-type]


def test_ranks_share_their_batches_which_are_not_augmented() -> None:
    settings = (LEARNS, "data.augment=[{use: RandomCrop, padding: 1}]")
    whole = prepared(*settings).loaders.held_out
    assert whole is not None
    assert not whole.transforms
    assert whole.batch_size == 26  # fewer than a batch of the training
    parts = [prepared(*settings, host=Rank(rank, 2)).loaders.held_out for rank in range(2)]
    for number in range(3):
        batch = whole.nth(number)
        for rank, part in enumerate(parts):
            assert part is not None
            assert part.nth(number).indices.equal(batch.indices[rank::2])


def test_a_teacher_trains_on_all_of_its_images() -> None:
    resolved = config(LEARNS)
    job = teacher_job(resolved, Storage("unused"))
    assert held_out_share(job.config) == 0
    assert prepare(job, LocalHost()).loaders.held_out is None
    assert teacher_directory(resolved, Storage("unused")) == teacher_directory(config(), Storage("unused"))


@pytest.mark.parametrize(
    ("share", "finding"), [(0.001, "that is 0 of 128 images"), (0.999, "that is 128 of 128 images")]
)
def test_too_few_images_on_either_side_are_refused(share: float, finding: str) -> None:
    with pytest.raises(ValueError, match=f"held_out must take at least 2 of the training images and .*{finding}"):
        prepared(f"aggregator={{use: DistPro, held_out: {share}}}")


@pytest.mark.parametrize("share", [3 / 128, 125 / 128])
def test_each_worker_gets_two_images_on_either_side(share: float, tmp_path: Path, capsys: Any) -> None:
    settings = (f"aggregator={{use: DistPro, held_out: {share}}}", "train.batch_size=2")
    said = r"at least 4 of the training images, 2 for each of 2 workers, "
    assert min(map(len, images(prepared(*settings)))) == 3  # enough for one
    with pytest.raises(ValueError, match=said):
        prepared(*settings, host=Rank(0, 2))
    storage = f"run.storage={tmp_path}"
    assert cli.main(["check", str(FILE), storage, "search=null", *settings, "run.workers=2"]) == 2
    assert said in capsys.readouterr().err


def test_the_plan_says_how_many(tmp_path: Path, capsys: Any) -> None:
    storage = f"run.storage={tmp_path}"
    assert cli.main(["check", str(FILE), storage, "search=null", LEARNS]) == 0
    assert "Images: 128 for training, 26 of these held out by DistPro (0.2)," in capsys.readouterr().out
    assert cli.main(["check", str(FILE), storage]) == 0
    assert "held out" not in capsys.readouterr().out
    grid = "search.aggregator={grid: [{use: Equal}, {use: DistPro, held_out: 0.5}]}"
    assert cli.main(["check", str(FILE), storage, grid]) == 0
    shown = capsys.readouterr().out
    assert "128 for training, 64 of these held out by DistPro (0.5)," in shown
    assert "the teacher trains on" not in shown
    assert cli.main(["check", str(FILE), storage, "search=null", LEARNS, "data.split.teacher=same"]) == 0
    shown = capsys.readouterr().out
    assert "  the teacher trains on 26 of those held out: " in shown
    assert "split.teacher: rest keeps them from it" in shown
    for share, said in (
        (0.001, "command line: aggregator.held_out: must take at least 2 of the training images"),
        (0.9, "and the 13 that are left are less than one batch of 32"),
    ):
        learns = f"aggregator={{use: DistPro, held_out: {share}}}"
        assert cli.main(["check", str(FILE), storage, "search=null", learns]) == 2
        assert said in capsys.readouterr().err


def test_runs_that_see_other_images_are_another_group_of_the_store() -> None:
    grid = "search.aggregator={grid: [{use: Equal}, {use: Adaptive}, {use: DistPro}, {use: DistPro, every: 3}]}"
    runs = [run for run in Design(load(FILE, [grid])).planned() if run.paths and run.seed == 0]
    shared, apart = group_runs(runs)
    assert [held_out_share(group.config) for group in (shared, apart)] == [0, 0.2]
    assert len(shared.uses) == len(apart.uses) == 4
    run = next(run for run in runs if run.config["aggregator"]["use"].endswith("DistPro"))
    filled, own = (prepare(Job(each.config, "", "", role="trial"), LocalHost()) for each in (apart, run))
    assert images(filled) == images(own)


def test_a_run_learns_its_weights_and_another_replays_them(tmp_path: Path) -> None:
    """Through everything: the file, the teacher, the target store's absence, and the record that a run leaves."""
    storage = Storage(str(tmp_path))
    learning = config(LEARNS, f"run.storage={tmp_path}")
    execute(teacher_job(learning, storage).to_dict(), LocalHost())
    teacher = teacher_directory(learning, storage)
    result = execute(Job(learning, "a", storage.child("learned").uri, teacher=teacher).to_dict(), LocalHost())
    assert result["status"] == "finished"
    assert result["steps"] == 2 * (102 // 32)
    replay = f"aggregator={{use: Replay, file: {tmp_path}/learned/trajectory.parquet}}"
    replaying = config(replay, f"run.storage={tmp_path}")
    again = execute(Job(replaying, "b", storage.child("replayed").uri, teacher=teacher).to_dict(), LocalHost())
    assert again["steps"] == 2 * (128 // 32)


@pytest.mark.parametrize(("setting", "share"), [(LEARNS, 0.2), ("aggregator={use: Equal}", 0.0)])
def test_the_record_of_a_run_says_its_share(setting, share):
    [run] = Design(load(FILE, ["search=null", setting])).planned()
    assert record(run, {"status": "finished"})["held_out"] == share
