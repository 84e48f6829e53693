"""Reading what a sweep left behind, crashes included."""

import json

import pytest

from orchestrator.compare.folder import Folder
from orchestrator.compare.records import Records


def _read(folder):
    return Records.read(Folder(str(folder)))


def test_reads_what_was_written(sweep):
    key = sweep.add("adaptive", "b+a", 1, 81.5, context={"train.optimizer.lr": 0.1}, test=81.0)
    records = _read(sweep.save())
    (run,) = records.runs
    assert records.experiment.name == "digits"
    assert records.seeds == (0, 1, 2)
    assert (run.key, run.seed, run.paths, run.status) == (key, 1, ("a", "b"), "finished")
    assert run.measured("validation", "accuracy") == 81.5
    assert run.measured("test", "accuracy") == 81.0
    assert run.teacher("test", "accuracy") == 95.0
    assert run.minutes == pytest.approx(0.7)


def test_a_later_line_replaces_an_earlier_one(sweep):
    sweep.add("equal", "a", 0, None, status="failed")
    sweep.add("equal", "b", 0, 80.0)
    sweep.add("equal", "a", 0, 82.0)
    runs = _read(sweep.save()).runs
    assert [(run.arm, run.status) for run in runs] == [("equal/a", "finished"), ("equal/b", "finished")]


def test_a_torn_last_line_is_named_and_the_rest_is_read(sweep):
    sweep.add("equal", "a", 0, 80.0)
    sweep.add("equal", "a", 1, 81.0)
    file = sweep.save() / "runs.jsonl"
    file.write_bytes(file.read_bytes()[:-40] + "é".encode()[:1])  # cut inside a character, too
    records = _read(sweep.folder)
    assert [run.seed for run in records.runs] == [0]
    assert len(records.damaged) == 1
    assert records.damaged[0].startswith("line 2 of runs.jsonl is damaged, its run counts as missing")


def test_a_line_torn_before_a_resume_is_named(sweep):
    sweep.add("equal", "a", 0, 80.0)
    torn = sweep.lines[0][:30]
    sweep.add("equal", "a", 1, 81.0)
    sweep.lines[0] = torn + sweep.lines[0]
    records = _read(sweep.save())
    assert [run.seed for run in records.runs] == [1]
    assert records.damaged[0].startswith("line 1 of runs.jsonl")


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"seed": "0"}, "seed must be an integer"),
        ({"paths": "a"}, "paths a list"),
        ({"result": {"status": "done"}}, "result.status must be one of finished, stopped, failed, found 'done'"),
    ],
)
def test_a_record_of_the_wrong_kind_is_named(sweep, change, finding):
    sweep.add("equal", "a", 0, 80.0)
    sweep.lines[0] = json.dumps(json.loads(sweep.lines[0]) | change)
    records = _read(sweep.save())
    assert records.runs == ()
    assert finding in records.damaged[0]


def test_a_record_without_a_key_is_named(sweep):
    sweep.lines.append('{"key": "1"}')
    assert "lacks arm, aggregator, paths, seed, kind, result" in _read(sweep.save()).damaged[0]


def test_seeds_are_those_seen_where_the_file_names_none(sweep):
    sweep.details["config"] = {}
    for seed in (4, 2):
        sweep.add("equal", "a", seed, 80.0)
    assert _read(sweep.save()).seeds == (2, 4)


def test_a_folder_without_an_experiment_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no experiment\.json"):
        _read(tmp_path)


@pytest.mark.parametrize(
    ("details", "finding"),
    [({"mode": "up"}, "mode must be max or min, found 'up'"), ({"protocol": "x"}, "protocol must be holdout or paper")],
)
def test_a_wrong_experiment_file_is_refused(sweep, details, finding):
    sweep.details.update(details)
    with pytest.raises(ValueError, match=finding):
        _read(sweep.save())


def test_a_remote_folder_reads_like_a_local_one(sweep):
    pytest.importorskip("pyarrow")
    sweep.add("equal", "a", 0, 80.0)
    folder = Folder(str(sweep.save()))
    remote = _PyarrowFolder(folder.location)
    assert remote.local is None
    assert Records.read(remote) == Records.read(folder)
    assert Folder("s3://bucket/results?region=eu").child("digits").location == "s3://bucket/results/digits?region=eu"


class _PyarrowFolder(Folder):
    """A folder on this disk, read the way a remote one is."""

    @property
    def local(self):
        return None
