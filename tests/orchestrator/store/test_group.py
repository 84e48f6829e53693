"""Which runs can share what the teacher says."""

from store_cases import FILE

from orchestrator.config import Design
from orchestrator.config.document import Document
from orchestrator.config.semantics import semantics
from orchestrator.config.structure import structure
from orchestrator.store import expected_runs, group_runs
from orchestrator.store.group import stored_names


def runs(search, **sections):
    return expected_runs(Design(semantics(structure(Document("sweep.yaml", {**FILE, **sections, "search": search})))))


def test_arms_share_and_data_seeds_do_not():
    planned = runs({"paths": {"sets": [["kd"], ["at", "kd"]]}, "seed": {"grid": [0, 1]}})
    groups = group_runs(planned)
    assert len(groups) == 2
    assert len({group.shape for group in groups}) == 1
    assert [sorted(map(sorted, (use.paths for use in group.uses))) for group in groups] == [
        [[], ["at", "kd"], ["kd"]]
    ] * 2
    assert set(groups[0].config["paths"]) == {"kd", "at"}


def test_a_fixed_data_seed_is_shared_over_seeds():
    planned = runs({"paths": {"sets": [["kd"]]}, "seed": {"grid": [0, 1, 2]}}, data_seed=7)
    [group] = group_runs(planned)
    assert len(group.uses) == 6


def test_what_changes_the_answers_separates():
    for key, values in {
        "train.batch_size": [16, 32],
        "train.precision": ["float32", "bfloat16"],
        "train.views": [1, 2],
        "teacher.seed": [0, 1],
        "student.model": [{"use": "ResNet8"}, {"use": "ResNet14"}],
    }.items():
        groups = group_runs(runs({"paths": {"sets": [["kd"]]}, key: {"grid": values}}))
        assert len({group.shape for group in groups}) == 2, key
    together = runs({"paths": {"sets": [["kd"]]}, "train.optimizer.lr": {"grid": [0.1, 0.2]}})
    assert len(group_runs(together)) == 1


def test_one_name_with_two_options_is_two_paths():
    planned = runs({"paths": {"sets": [["kd"]]}, "paths.kd.temperature": {"grid": [1.0, 4.0]}})
    [group] = group_runs(planned)
    assert set(group.config["paths"]) == {"kd", "kd_2"}
    arms = [run for run in planned if run.paths]
    assert [stored_names(group, run.config, ["kd_2"]) for run in arms] == [(), ("kd",)]


def test_arms_that_are_proposed_on_the_way_are_stood_for_by_random_ones():
    search = {"paths": {"sets": [["kd"], ["at"]]}, "train.optimizer.lr": {"loguniform": [0.01, 0.1]}}
    planned = runs(search, run={"num_arms": 5})
    assert len(planned) == 1 + 5
    assert len(group_runs(planned)) == 1
