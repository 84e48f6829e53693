"""From runs to what each of them is told, with real measurements."""

from functools import partial

import pytest
import torch
from store_cases import FILE

from distill.host import LocalHost
from orchestrator.config import Design
from orchestrator.config.document import Document
from orchestrator.config.semantics import semantics
from orchestrator.config.structure import structure
from orchestrator.job import Job
from orchestrator.preparation import prepare
from orchestrator.storage import Storage
from orchestrator.store import Measurement, fill, fill_jobs, measure, plan_store

NUM_OTHER = 100 + 359
"""Images of the validation and the test split."""
HOST = LocalHost(torch.device("cpu"))


def design(search=None, **sections):
    written = {**FILE, **sections} | ({} if search is None else {"search": search})
    return Design(semantics(structure(Document("sweep.yaml", written))))


SEARCH = {"paths": {"sets": [["kd"], ["kd", "at"]]}, "seed": {"grid": [0]}}


def plan(folder, runs, **options):
    options = {"mode": "auto", "budget_gib": 1.0, "measure": partial(measure, host=HOST)} | options
    return plan_store(runs, storage=Storage(folder), **options)


def test_what_is_measured_is_what_a_target_takes():
    config = design(SEARCH).planned()[-1].config
    measured = Measurement(**measure(config, HOST))
    assert measured.num_rows == 64
    assert measured.num_other_rows == NUM_OTHER
    assert measured.row_bytes == {"kd": 4 * 10, "at": 4 * (8 * 8 + 4 * 4 + 2 * 2)}
    assert measured.refusals == {}
    assert min(measured.ask_seconds, measured.write_seconds, measured.read_seconds) > 0


def test_a_run_is_told_which_of_its_own_paths_are_stored(tmp_path):
    runs = design(SEARCH).planned()
    found = plan(tmp_path, runs, mode="exact")
    told = {run.paths: found.job(run.config) for run in runs}
    assert told["at", "kd"].paths == ("kd", "at")
    assert told["kd",].paths == ("kd",)
    assert told[()].paths == ()  # the student alone: the teacher's predictions for its agreement
    assert told["kd",].folder == str(tmp_path / "targets")
    assert Job.from_dict(Job(runs[0].config, "", "", store=told["kd",]).to_dict()).store == told["kd",]


def test_off_tells_nobody_and_measures_nothing(tmp_path):
    runs = design(SEARCH).planned()
    found = plan(tmp_path, runs, mode="off", measure=None)
    assert {found.job(run.config) for run in runs} == {None}
    assert found.lines()[0] == "Targets: nothing is stored"


def test_a_single_run_with_augmentation_measures_nothing(tmp_path):
    data = {"use": "Digits", "augment": [{"use": "RandomCrop", "padding": 1}]}
    [run] = design(data=data).planned()
    found = plan(tmp_path, [run], measure=None)
    assert found.job(run.config) is None
    assert "no image is asked about twice" in found.lines()[1]


def test_filling_leaves_nothing_to_ask(tmp_path):
    runs = design(SEARCH).planned()
    found = plan(tmp_path, runs, mode="exact")
    jobs = fill_jobs(found, num_places=2, teacher_of=lambda config: None)
    views = [epoch for job in jobs for epoch in job.epochs]
    assert sorted(views) == list(range(found.groups[0].num_views))
    untaught = [{**job.to_dict(), "job": {**job.to_dict()["job"], "role": "trial"}} for job in jobs]
    torch.manual_seed(0)
    num_asked = sum(fill(job, HOST) for job in untaught)
    assert num_asked == 64 * len(views) + NUM_OTHER
    assert sum(fill(job, HOST) for job in untaught) == 0
    job = Job(runs[-1].config, "", "", role="trial", store=found.job(runs[-1].config))
    prepared = prepare(job, HOST)
    for epoch in views:
        mapped = prepared.targets.open(prepared.loaders.train, epoch)
        for batch in prepared.loaders.train.epoch(epoch, mapped):
            assert set(prepared.targets.targets(batch)) == set(batch.targets) == {"kd", "at"}
    prepared.targets.answers(prepared.loaders.validation)
    prepared.targets.answers(prepared.loaders.test)
    assert prepared.stored.num_asked == 0


@pytest.mark.parametrize(("seeds", "data_seed"), [([0, 1], None), ([0, 1], 3)])
def test_data_seeds_that_are_shared_are_filled_once(tmp_path, seeds, data_seed):
    runs = design({**SEARCH, "seed": {"grid": seeds}}, data_seed=data_seed).planned()
    found = plan(tmp_path, runs, mode="exact")
    assert len(found.groups) == (1 if data_seed is not None else 2)
