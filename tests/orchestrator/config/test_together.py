from pathlib import Path

import pytest

from orchestrator.config import Design, UserError, load

FILE = """
data: {use: Digits}
teacher: {model: {use: ResNet8, width: 32}, train: {epochs: 1}}
student: {model: {use: ResNet8}}
paths:
  soft_target: {use: SoftTarget}
  attention: {use: AttentionTransfer}
train: {epochs: 1}
search:
  seed: {grid: [0, 1]}
"""
ARMS = """
  arms:
    single: {paths: [attention], aggregator: {use: Single, weight: 1000}}
    both: {paths: [soft_target, attention], aggregator: {use: Equal}}
    learned: {paths: [attention, soft_target], aggregator: {use: Adaptive}}
"""


def design(tmp_path: Path, search: str) -> Design:
    (tmp_path / "file.yaml").write_text(FILE + search)
    return Design(load(tmp_path / "file.yaml"))


def test_only_the_listed_combinations_are_arms(tmp_path):
    arms = [(arm.choices["aggregator"].label, arm.paths) for arm in design(tmp_path, ARMS).arms()]
    assert sorted(arms) == [
        ("adaptive", ("soft_target", "attention")),
        ("equal", ("soft_target", "attention")),
        ("single", ("attention",)),
    ]


def test_every_arm_runs_on_all_seeds_beside_the_student_alone(tmp_path):
    planned = design(tmp_path, ARMS).planned()
    assert len(planned) == 2 + 3 * 2
    assert [run.seed for run in planned if run.kind == "student"] == [0, 1]
    single = next(run for run in planned if run.aggregator == "single")
    assert single.config["aggregator"]["weight"] == 1000
    assert list(single.config["paths"]) == ["attention"]


def test_pairs_are_crossed_with_arms_and_give_the_student_alone_of_each(tmp_path):
    pairs = """
  pairs:
    small: {teacher: {model: {use: ResNet8, width: 32}, train: {epochs: 1}}, student: {model: {use: ResNet8, width: 8}}}
    deep: {teacher: {model: {use: ResNet20}, train: {epochs: 1}}, student: {model: {use: ResNet8, width: 16}}}
"""
    planned = design(tmp_path, ARMS + pairs).planned()
    assert len(planned) == 2 * 2 + 2 * 3 * 2
    met = {
        (run.config["teacher"]["model"]["use"], run.config["student"]["model"]["width"]) for run in planned if run.paths
    }
    assert met == {("ResNet8", 8), ("ResNet20", 16)}


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("\n  arms: []\n", r"search\.arms: must map labels"),
        ("\n  arms: {a: 3}\n", r"search\.arms\.a: must map keys"),
        ("\n  arms: {a: {paths: [atention], aggregator: {use: Equal}}}\n", r"search\.arms\.a\.paths.*Did you mean 'attention'"),  # noqa: E501
        ("\n  arms: {a: {pathes: [attention]}}\n", r"'pathes' cannot vary.*Did you mean 'paths'"),
        ("\n  arms: {a: {paths: [attention]}, b: {aggregator: {use: Equal}}}\n", r"search\.arms\.b: must give a value to each of paths"),  # noqa: E501
        ("\n  arms: {a: {paths: [attention]}, b: {paths: [attention]}}\n", r"search\.arms\.b: is the same"),
        ("\n  arms: {a: {paths: [attention]}}\n  paths: {subsets: all}\n", r"'paths' varies by itself already"),
        ("\n  arms: {a: {paths: [attention], aggregator: {use: Adaptve}}}\n", r"unknown aggregator 'Adaptve'"),
        ("\n  arm: {a: {paths: [attention]}}\n", r"Did you mean 'arms'"),
    ],
)  # fmt: skip
def test_mistakes_are_named_where_they_stand(tmp_path, search, message):
    with pytest.raises(UserError, match=message):
        design(tmp_path, search)
