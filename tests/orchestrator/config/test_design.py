"""From a search to arms and runs."""

from __future__ import annotations

import random

import pytest

from orchestrator.config import Design, UserError
from orchestrator.config.document import Document
from orchestrator.config.interval import Interval
from orchestrator.config.semantics import semantics
from orchestrator.config.structure import structure

FILE = {
    "data": {"use": "Digits"},
    "teacher": {"model": {"use": "ResNet8", "width": 32}, "train": {"epochs": 9}},
    "student": {"model": {"use": "ResNet8"}},
    "paths": {"kd": {"use": "SoftTarget"}, "at": {"use": "AttentionTransfer"}, "nst": {"use": "NSTGram"}},
    "train": {"epochs": 3},
}


def design(search, **sections):
    written = {**FILE, **sections, "search": search}
    return Design(semantics(structure(Document("sweep.yaml", written))))


def names(planned):
    return sorted({run.arm for run in planned})


def test_arms_times_seeds_and_the_student_alone():
    planned = design(
        {
            "paths": {"sets": [["kd"], ["at", "kd"]]},
            "aggregator": {"grid": [{"use": "Equal"}, {"use": "LogSum"}]},
            "seed": {"grid": [0, 1, 2]},
        }
    ).planned()
    assert names(planned) == ["alone", "equal/kd", "equal/kd+at", "log_sum/kd", "log_sum/kd+at"]
    assert len(planned) == (4 + 1) * 3
    assert len({run.key for run in planned}) == len(planned)
    alone = [run for run in planned if run.kind == "student"]
    assert [(run.aggregator, run.paths, run.seed, run.context) for run in alone] == [
        ("none", (), 0, {}),
        ("none", (), 1, {}),
        ("none", (), 2, {}),
    ]
    run = next(run for run in planned if run.arm == "log_sum/kd+at" and run.seed == 2)
    assert run.paths == ("at", "kd")
    assert run.name == "log_sum kd+at s2"
    assert run.config["aggregator"]["use"] == "LogSum"
    assert list(run.config["paths"]) == ["kd", "at"]
    assert (run.config["seed"], run.config["data_seed"]) == (2, 2)
    assert "search" not in run.config
    assert run.config_hash.startswith(run.key)


def test_runs_of_one_seed_differ_only_in_what_their_arms_say():
    planned = design({"paths": {"subsets": 1}, "seed": {"grid": [4]}}).planned()
    rest = [{key: value for key, value in run.config.items() if key not in ("paths", "aggregator")} for run in planned]
    assert all(other == rest[0] for other in rest)


@pytest.mark.parametrize(
    ("domain", "sets"),
    [
        ({"subsets": "all"}, ["at", "at+nst", "kd", "kd+at", "kd+at+nst", "kd+nst", "nst"]),
        ({"subsets": 2}, ["at", "at+nst", "kd", "kd+at", "kd+nst", "nst"]),
        ({"design": "one-at-a-time"}, ["at", "kd", "nst"]),
        ({"design": "leave-one-out"}, ["at+nst", "kd+at", "kd+at+nst", "kd+nst"]),
        ({"sets": {"both": ["at", "kd"], "all": ["kd", "at", "nst"]}}, ["all", "both"]),
    ],
)
def test_path_sets(domain, sets):
    assert sorted(arm.name.partition("/")[2] for arm in design({"paths": domain}).arms()) == sets


def test_groups_of_paths_are_cut_down_to_the_set():
    # The names of groups may be those of paths, as here 'kd': it is the members that count.
    groups = {"kd": ["kd", "nst"], "maps": ["at"]}
    planned = design(
        {"paths": {"sets": [["kd", "at", "nst"], ["kd", "nst"], ["at"], ["nst"]]}, "seed": {"grid": [0]}},
        aggregator={"use": "Adaptive", "granularity": groups},
    ).planned()
    found = {run.paths: run.config["aggregator"].get("granularity") for run in planned}
    assert found == {
        (): "path",  # the student alone aggregates nothing
        ("at", "kd", "nst"): groups,
        ("kd", "nst"): {"kd": ["kd", "nst"]},
        ("at",): {"maps": ["at"]},
        ("nst",): {"kd": ["nst"]},
    }


def test_modifiers_are_part_of_an_arm_s_name():
    gate = {"use": "CosineGate", "every": 5}
    search = {"aggregator": {"grid": [{"use": "Equal"}, {"use": "Equal", "modifiers": [gate]}]}}
    found = design(search, paths={"kd": {"use": "SoftTarget"}})
    assert names(found.planned()) == ["alone", "equal-cosine_gate/kd", "equal/kd"]


def test_other_grids_are_context_and_the_student_alone_is_run_for_those_that_concern_it():
    planned = design(
        {
            "paths": {"sets": [["kd"], ["at"]]},
            "paths.kd.temperature": {"grid": [1, 4]},
            "train.optimizer.lr": {"grid": [0.1, 0.01]},
            "seed": {"grid": [0]},
        }
    ).planned()
    assert names(planned) == [
        "alone lr=0.01",
        "alone lr=0.1",
        "equal/at lr=0.01",
        "equal/at lr=0.1",
        "equal/kd temperature=1 lr=0.01",
        "equal/kd temperature=1 lr=0.1",
        "equal/kd temperature=4 lr=0.01",
        "equal/kd temperature=4 lr=0.1",
    ]
    alone = next(run for run in planned if run.arm == "alone lr=0.01")
    assert alone.context == {"train.optimizer.lr": 0.01}
    matching = [run for run in planned if alone.context.items() <= run.context.items() and run.kind == "run"]
    assert len(matching) == 3
    assert all(run.config["train"]["optimizer"]["lr"] == 0.01 for run in matching)


def test_a_search_over_the_student_s_training_leaves_the_teacher_alone():
    planned = design({"train.optimizer.lr": {"grid": [0.1, 0.2]}, "train.batch_size": {"grid": [16, 32]}}).planned()
    teachers = [run.config["teacher"]["train"] for run in planned]
    assert all(teacher == teachers[0] for teacher in teachers)
    assert (teachers[0]["epochs"], teachers[0]["batch_size"], teachers[0]["optimizer"]["lr"]) == (9, 64, 0.1)
    assert {run.config["train"]["batch_size"] for run in planned} == {16, 32}


def test_students_and_teachers_vary_by_name():
    students = [{"model": {"use": "ResNet8"}}, {"model": {"use": "ResNet20"}}]
    teachers = {"small": {"model": {"use": "ResNet8"}}, "large": {"model": {"use": "ResNet56"}, "seed": 3}}
    planned = design(
        {"student": {"grid": students}, "teacher": {"grid": teachers}, "paths": {"sets": [["kd"]]}}
    ).planned()
    assert names(planned) == [
        "alone student=ResNet20",
        "alone student=ResNet8",
        "equal/kd student=ResNet20 teacher=large",
        "equal/kd student=ResNet20 teacher=small",
        "equal/kd student=ResNet8 teacher=large",
        "equal/kd student=ResNet8 teacher=small",
    ]
    large = next(run for run in planned if run.context.get("teacher") == "large")
    assert large.config["teacher"]["model"] == {"use": "ResNet56", "width": 16}
    assert large.config["teacher"]["train"]["epochs"] == 3  # the file's own, for a teacher that says nothing


def test_keys_inside_a_varied_section_are_set_after_it():
    planned = design(
        {
            "aggregator": {"grid": [{"use": "Adaptive"}, {"use": "LogSum"}]},
            "aggregator.alpha_distill": {"grid": [0.5, 1]},
            "paths": {"sets": [["kd"]]},
        }
    ).planned()
    assert {
        (run.config["aggregator"]["use"], run.config["aggregator"]["alpha_distill"]) for run in planned if run.paths
    } == {
        ("Adaptive", 0.5),
        ("Adaptive", 1.0),
        ("LogSum", 0.5),
        ("LogSum", 1.0),
    }


def test_what_an_aggregator_refuses_is_left_out_and_said():
    made = design(
        {"paths": {"sets": [["kd"], ["kd", "at"]]}, "aggregator": {"grid": [{"use": "Single"}, {"use": "Equal"}]}}
    )
    assert names(made.planned()) == ["alone", "equal/kd", "equal/kd+at", "single/kd"]
    [note] = made.notes
    assert note.startswith("left out single with kd+at: ")
    assert "exactly one path" in note


def test_an_aggregator_that_takes_no_set_at_all_is_a_mistake():
    with pytest.raises(UserError, match=r"search\.aggregator\.grid\.1: .*exactly one path"):
        design({"paths": {"sets": [["kd", "at"]]}, "aggregator": {"grid": [{"use": "Equal"}, {"use": "Single"}]}})


def test_hand_set_weights_are_cut_down_to_the_set():
    weights = {"kd": 0.1, "at": 1000, "nst": 10}
    made = design({"paths": {"subsets": 2}, "aggregator": {"grid": [{"use": "Fixed", "weights": weights}]}})
    assert made.notes == []
    for run in made.planned():
        if run.paths:
            assert run.config["aggregator"]["weights"] == {name: weights[name] for name in run.paths}


def test_a_file_without_search_is_one_run():
    written = {**FILE, "aggregator": {"use": "Adaptive"}, "seed": 7}
    [run] = Design(semantics(structure(Document("one.yaml", written)))).planned()
    assert (run.arm, run.kind, run.seed) == ("adaptive/kd+at+nst", "run", 7)


def test_a_search_without_paths_is_about_the_student_alone():
    planned = design({"train.optimizer.lr": {"grid": [0.1, 0.2]}, "seed": {"grid": [0, 1]}}, paths={}).planned()
    assert [(run.arm, run.seed) for run in planned] == [
        ("alone lr=0.1", 0),
        ("alone lr=0.1", 1),
        ("alone lr=0.2", 0),
        ("alone lr=0.2", 1),
    ]
    assert {run.kind for run in planned} == {"student"}


def test_names_fit_into_a_table():
    paths = {f"long_path_name_{number}": {"use": "Logits"} for number in range(6)}
    planned = design({"paths": {"design": "leave-one-out"}, "seed": {"grid": [0]}}, paths=paths).planned()
    assert all(len(run.name) <= 32 for run in planned)
    assert "equal all s0" in [run.name for run in planned]
    assert "equal all-long_path_name_3 s0" in [run.name for run in planned]
    assert all("long_path_name_0+" in run.arm for run in planned if run.name == "equal all s0")


SAMPLED = {
    "paths": {"sets": [["kd"], ["at"], ["kd", "at"]]},
    "train.optimizer.lr": {"loguniform": [0.001, 0.1]},
    "train.batch_size": {"choice": [16, 32, 64]},
    "seed": {"grid": [0, 1]},
}


def sampled(searcher="random", num_arms=6, **sections):
    return design(SAMPLED, run={"num_arms": num_arms, "searcher": searcher}, **sections)


def propose_all(proposer):
    arms = []
    while (arm := proposer.propose()) is not None:
        arms.append(arm)
    return arms


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_sampled_arms_run_on_all_seeds_and_controls_are_those_of_the_file(searcher):
    if searcher == "optuna":
        pytest.importorskip("optuna")
    made = sampled(searcher)
    assert [(run.arm, run.seed) for run in made.planned()] == [("alone", 0), ("alone", 1)]
    proposer = made.proposer()
    arms = []
    for _ in range(6):
        arm = proposer.propose()
        arms.append(arm)
        proposer.tell(arm, 50.0)
    assert proposer.propose() is None
    assert len({arm.name for arm in arms}) == 6
    for arm in arms:
        runs = made.runs(arm)
        assert [run.seed for run in runs] == [0, 1]
        assert 0.001 <= runs[0].config["train"]["optimizer"]["lr"] <= 0.1
        assert runs[0].config["train"]["batch_size"] in (16, 32, 64)
        assert runs[0].context["train.optimizer.lr"] == runs[0].config["train"]["optimizer"]["lr"]
        assert made.arm(runs[0].assignment) == arm


def test_random_arms_follow_from_the_seed_and_give_each_grid_value_its_share():
    first, second = propose_all(sampled().proposer()), propose_all(sampled().proposer())
    assert first == second
    assert propose_all(sampled(seed=1).proposer()) != first
    counts = [sum(arm.choices["paths"].label == label for arm in first) for label in ("kd", "at", "kd+at")]
    assert counts == [2, 2, 2]


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_arms_of_an_earlier_attempt_are_not_proposed_again(searcher):
    if searcher == "optuna":
        pytest.importorskip("optuna")
    earlier = sampled(searcher)
    proposer = earlier.proposer()
    done = [proposer.propose() for _ in range(4)]
    again = sampled(searcher)
    resumed = again.proposer()
    for position, arm in enumerate(done):
        resumed.tell(again.arm(earlier.assignment(arm)), None if position == 1 else 40.0 + position)
    new = propose_all(resumed)
    assert len(new) == 2
    assert not {arm.name for arm in new} & {arm.name for arm in done}


def test_optuna_learns_from_what_it_is_told():
    pytest.importorskip("optuna")
    made = sampled("optuna", num_arms=40)
    proposer = made.proposer()
    rates = []
    while (arm := proposer.propose()) is not None:
        rate = made.assignment(arm)["train.optimizer.lr"]
        rates.append(rate)
        proposer.tell(arm, 100 * rate)  # the more the better
    assert sum(rates[-10:]) > 1.5 * sum(rates[:10])


def test_a_missing_optuna_says_how_to_get_it(monkeypatch):
    import sys

    made = sampled("optuna")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'distillery\[optuna\]'"):
        made.proposer()


def test_the_grid_proposes_every_arm_once():
    made = design({"paths": {"subsets": "all"}})
    proposer = made.proposer()
    proposer.tell(made.arms()[2], 3.0)
    assert len(propose_all(proposer)) == 6
    assert proposer.propose() is None


def test_ranges_have_four_digits_and_stay_inside():
    domain = Interval("x", 0.00123456, 0.5, True, "search.x")
    generator = random.Random(0)
    drawn = [domain.draw(generator) for _ in range(200)]
    assert all(0.00123456 <= choice.value <= 0.5 for choice in drawn)
    assert all(float(choice.label) == pytest.approx(choice.value, rel=1e-3) for choice in drawn)
    # Even in the exponent: about half lies below the geometric mean.
    assert 70 < sum(choice.value < (0.00123456 * 0.5) ** 0.5 for choice in drawn) < 130
