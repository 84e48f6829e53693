"""Which arms are held against which."""

import pytest

from orchestrator.compare.design import Design


def _named(design, pairs):
    return {(design.arms[first].name, design.arms[second].name) for first, second in pairs}


def test_pairs_differ_in_one_path_within_an_aggregator(plan):
    design = Design(plan(["a", "b", "a+b", "a+b+c"], aggregators=["equal", "adaptive"], num_seeds=2))
    assert _named(design, design.pairs("a")) == {
        ("equal/a", "alone"),
        ("adaptive/a", "alone"),
        ("equal/a+b", "equal/b"),
        ("adaptive/a+b", "adaptive/b"),
    }
    assert _named(design, design.add_one("a")) == {("equal/a", "alone"), ("adaptive/a", "alone")}
    assert design.leave_one_out("a") == []
    assert _named(design, design.leave_one_out("c")) == {
        ("equal/a+b+c", "equal/a+b"),
        ("adaptive/a+b+c", "adaptive/a+b"),
    }
    assert design.add_one("c") == []


def test_the_contrast_is_the_mean_over_the_pairs(plan):
    design = Design(plan(["a"], aggregators=["equal", "adaptive"], num_seeds=2))
    # (equal/a - alone + adaptive/a - alone) / 2
    assert design.contrast(design.pairs("a")) == pytest.approx([-1.0, 0.5, 0.5])


def test_shapley_shares_of_three_paths_by_hand(plan):
    # Of the six orders a comes first in two, second behind b in one and behind c in one, last in two.
    design = Design(plan(["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"], aggregators=["equal"], num_seeds=2))
    shares = {_named(design, [pair]).pop(): share for pair, share in design.shapley("a").items()}
    assert shares == {
        ("equal/a", "alone"): pytest.approx(2 / 6),
        ("equal/a+b", "equal/b"): pytest.approx(1 / 6),
        ("equal/a+c", "equal/c"): pytest.approx(1 / 6),
        ("equal/a+b+c", "equal/b+c"): pytest.approx(2 / 6),
    }


def test_shapley_values_share_out_the_gain_of_all_paths(plan):
    sets = ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]
    design = Design(plan(sets, aggregators=["equal", "adaptive"], num_seeds=2))
    summed = sum(
        design.contrast(list(shares), list(shares.values())) for shares in map(design.shapley, ("a", "b", "c"))
    )
    gains = [(design.index[f"{label}/a+b+c"], design.index["alone"]) for label in ("equal", "adaptive")]
    assert summed == pytest.approx(design.contrast(gains))


def test_no_shapley_value_without_all_subsets(plan):
    design = Design(plan(["a", "b", "a+b", "a+b+c"], aggregators=["equal"], num_seeds=2))
    assert design.shapley("a") == {}


def test_equal_stands_against_the_same_paths_only(plan):
    design = Design(plan(["a", "a+b"], aggregators=["Equal", "adaptive"], num_seeds=2))
    partners = {arm.name: design.equal(arm) for arm in design.arms}
    assert partners == {
        "alone": None,
        "Equal/a": None,
        "Equal/a+b": None,
        "adaptive/a": design.index["Equal/a"],
        "adaptive/a+b": design.index["Equal/a+b"],
    }


def test_a_context_has_its_own_student_alone(cell):
    runs = []
    for rate in (0.1, 0.2):
        for arm, label, paths, kind in (("alone", "none", (), "student"), ("equal/a", "equal", ("a",), "run")):
            runs.append(cell(f"{arm} lr={rate}", label, paths, 0, kind, {"train.optimizer.lr": rate}))
    design = Design(runs)
    assert _named(design, design.pairs("a")) == {
        ("equal/a lr=0.1", "alone lr=0.1"),
        ("equal/a lr=0.2", "alone lr=0.2"),
    }
    assert design.block_of_arm.tolist() == [0, 0, 1, 1]
    assert len(set(design.seed_effect_of_cell.tolist())) == 2  # one seed, but another student in each block


def test_sampled_contexts_fall_back_to_the_base(cell):
    runs = [cell("alone", "none", (), 0, "student", {})]
    runs += [
        cell(f"adaptive/a lr={rate}", "adaptive", ("a",), 0, "run", {"train.optimizer.lr": rate})
        for rate in (0.03, 0.07)
    ]
    design = Design(runs)
    assert design.alone == (0, 0, 0)
    assert design.block_of_arm.tolist() == [0, 0, 0]
    # But not as the path's empty set: the pair would differ in the learning rate, too.
    assert design.pairs("a") == []
    assert [design.has_own_alone(position) for position in range(3)] == [True, False, False]


def test_what_a_student_alone_does_not_have_parts_no_pair(cell):
    context = {"aggregator.alpha_distill": 2, "paths.a.temperature": 4, "teacher": "large"}
    runs = [cell("alone", "none", (), 0, "student", {}), cell("adaptive/a x", "adaptive", ("a",), 0, "run", context)]
    assert Design(runs).pairs("a") == [(1, 0)]


def test_the_student_alone_that_agrees_in_most_keys_is_the_control(cell):
    runs = [
        cell("alone", "none", (), 0, "student", {}),
        cell("alone lr=0.1", "none", (), 0, "student", {"lr": 0.1}),
        cell("alone lr=0.2", "none", (), 0, "student", {"lr": 0.2}),
        cell("equal/a lr=0.1 t=4", "equal", ("a",), 0, "run", {"lr": 0.1, "paths.a.temperature": 4}),
    ]
    assert Design(runs).alone == (0, 1, 2, 1)


def test_contexts_that_contradict_every_control_have_none(cell):
    runs = [
        cell("alone lr=0.1", "none", (), 0, "student", {"lr": 0.1}),
        cell("alone lr=0.2", "none", (), 0, "student", {"lr": 0.2}),
        cell("equal/a lr=0.3", "equal", ("a",), 0, "run", {"lr": 0.3}),
    ]
    assert Design(runs).alone == (0, 1, None)


def test_options_of_the_path_itself_do_not_part_a_pair(cell):
    # The partner without soft targets has no temperature to vary.
    runs = [
        cell("equal/a", "equal", ("a",), 0),
        cell("equal/a+soft T=2", "equal", ("a", "soft"), 0, "run", {"paths.soft.temperature": 2}),
        cell("equal/a+soft T=4", "equal", ("a", "soft"), 0, "run", {"paths.soft.temperature": 4}),
        cell("equal/a+soft lr=1", "equal", ("a", "soft"), 0, "run", {"lr": 1}),
    ]
    design = Design(runs)
    assert _named(design, design.pairs("soft")) == {("equal/a+soft T=2", "equal/a"), ("equal/a+soft T=4", "equal/a")}


def test_options_of_the_aggregator_do_not_part_it_from_equal(cell):
    runs = [
        cell("equal/a", "equal", ("a",), 0),
        cell("adaptive/a alpha=2", "adaptive", ("a",), 0, "run", {"aggregator.alpha_distill": 2}),
        cell("adaptive/a lr=1", "adaptive", ("a",), 0, "run", {"lr": 1}),
    ]
    design = Design(runs)
    assert [design.equal(arm) for arm in design.arms] == [None, 0, None]


@pytest.mark.parametrize(
    ("sets", "path", "reason"),
    [
        (["a+kd", "b+kd"], "kd", "it is in every path set"),
        (["a+kd", "b+kd"], "a", "no two arms differ in it alone"),
        (["kd", "a+kd"], "kd", None),
        (["kd", "a+kd"], "a", None),
    ],
)
def test_what_cannot_be_told(plan, sets, path, reason):
    assert Design(plan(sets, aggregators=["equal"], num_seeds=2)).why_undecidable(path) == reason
