"""The table for a terminal and as markdown."""

import re

import pytest

from orchestrator.compare import compare
from orchestrator.compare.path_labels import PathLabels
from orchestrator.compare.wording import signed


def _fill(sweep, sets, *, aggregators=("equal", "adaptive"), seeds=3, context=None):
    for seed in range(seeds):
        wobble = (0.1, -0.1, 0.02)[seed]
        sweep.add("none", "", seed, 80.0 + wobble, test=79.5)
        for number, label in enumerate(aggregators):
            for names, value in sets.items():
                noise = (0.05, -0.1, 0.03)[(seed + number) % 3]
                sweep.add(label, names, seed, value + noise, test=79.0, context=context)
    return compare(sweep.save())


def _row(text, *starts):
    return next(line for line in text.splitlines() if all(start in line for start in starts))


def test_a_row_by_hand(sweep):
    for seed, (alone, arm) in enumerate(((80.0, 83.0), (82.0, 84.0))):
        sweep.add("none", "", seed, alone, test=alone - 1)
        sweep.add("adaptive", "a", seed, arm, test=arm - 1)
    sweep.details["config"] = {"search": {"seed": {"grid": [0, 1]}}}
    text = compare(sweep.save()).table_text()
    # Means 83.5 and 81; sd sqrt(0.5) and sqrt(2); the interval is derived in test_compare_fit.
    assert re.split(r" {2,}", _row(text, "adaptive")) == [
        "adaptive", "a", "2", "83.50 +- 0.71", "+2.50 [-3.85, +8.85]", "82.50 +- 0.71", "0.60", "best",
    ]  # fmt: skip
    assert re.split(r" {2,}", _row(text, "-  ", "student alone  ")) == [
        "-", "student alone", "2", "81.00 +- 1.41", "(reference)", "80.00 +- 1.41", "0.50",
    ]  # fmt: skip
    assert re.split(r" {2,}", _row(text, "teacher")) == ["teacher", "ResNet20", "95.40", "95.00"]


def test_sets_below_the_student_alone_stand_out_without_colour(sweep):
    text = _fill(sweep, {"good": 82.0, "bad": 78.0, "poor": 79.95}).table_text()
    assert _row(text, "equal", "bad").endswith("BELOW")
    assert _row(text, "adaptive", "poor").endswith("below?")
    assert not _row(text, "equal", "good").endswith(("BELOW", "below?"))
    assert "BELOW: under the student alone with its whole interval" in text
    assert "\033" not in text


def test_colour_only_paints_whole_rows(sweep):
    answer = _fill(sweep, {"good": 82.0, "bad": 78.0})
    colored = answer.table_text(color=True)
    assert re.sub(r"\033\[\d+m", "", colored) == answer.table_text()
    assert _row(colored, "equal", "bad").startswith("\033[31m")
    assert _row(colored, "adaptive", "good").startswith("\033[32m")
    assert "\033" not in _row(colored, "-  ", "student alone  ")


LONG = "attention+feature_map+logits+nst_gram+soft_target+softmax_regression"


def test_long_path_sets_fit_with_a_legend(sweep):
    names = LONG.split("+")
    sets = {LONG: 82.0} | {"+".join(n for n in names if n != left): 81.0 for left in names} | dict.fromkeys(names, 80.5)
    text = _fill(sweep, sets, aggregators=("equal", "adaptive_layerwise", "logsum")).table_text()
    assert max(len(line) for line in text.splitlines()) <= 140
    assert f"all = {LONG}" in text
    assert "all-nst_gram" in text


def test_long_settings_fit_with_a_legend(sweep):
    context = {
        "train.optimizer.lr": 0.0312345678,
        "train.optimizer.weight_decay": 0.000512345,
        "paths.a.temperature": 4,
    }
    text = _fill(sweep, {LONG: 82.0, "nst_gram": 80.5}, aggregators=("equal", "adaptive_layerwise"), context=context)
    text = text.table_text()
    assert max(len(line) for line in text.splitlines()) <= 140
    assert "setting 1 = lr=0.0312345678 weight_decay=0.000512345 temperature=4" in text


def test_unfinished_arms_and_cautions_are_in_the_table(sweep):
    sweep.add("logsum", "good", 0, None, status="failed", reason="out of memory")
    text = _fill(sweep, {"good": 82.0}).table_text()
    assert "Not complete: logsum/good: seed 0 failed: out of memory" in text


def test_markdown_has_a_cell_for_every_column(sweep):
    answer = _fill(sweep, {"good": 82.0, "bad|x": 78.0})
    blocks = [block.splitlines() for block in answer.table_markdown.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3
    for block in blocks:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block}
        assert len(counts) == 1
    assert "| **adaptive** | **good** | **3** |" in answer.table_markdown
    assert "| **BELOW** |" in answer.table_markdown
    assert "bad\\|x" in answer.table_markdown


def test_the_numbers_are_those_of_the_json(sweep):
    answer = _fill(sweep, {"good": 82.0, "bad": 78.0})
    text = answer.table_text()
    for arm in answer.to_json()["arms"]:
        if arm["is_alone"]:
            continue
        row = _row(text, arm["aggregator"], f" {arm['paths'][0]} ")
        difference = arm["over_alone"]
        low, high = signed(difference["low"], 2), signed(difference["high"], 2)
        assert f"{signed(difference['difference'], 2)} [{low}, {high}]" in row
        assert f"{arm['mean']:.2f} +- {arm['sd']:.2f}" in row


@pytest.mark.parametrize(("value", "text"), [(-0.001, "+0.00"), (-0.006, "-0.01"), (1.239, "+1.24"), (0.0, "+0.00")])
def test_zero_has_no_minus(value, text):
    assert signed(value, 2) == text


def test_labels_of_path_sets():
    labels = PathLabels("abcdef", [("a",), tuple("abcde"), tuple("abcdef"), ("a", "b", "c", "d")], width=6)
    assert [labels[s] for s in (("a",), tuple("abcde"), tuple("abcdef"))] == ["a", "all-f", "all"]
    assert labels[("a", "b", "c", "d")] == "set 1"
    assert labels.legend == ("all = a+b+c+d+e+f", "set 1 = a+b+c+d")


def test_a_table_a_little_too_wide_is_abbreviated(sweep):
    pair = "attention_transfer+softmax_regression"
    answer = _fill(sweep, {pair: 82.0, "softmax_regression": 81.0}, aggregators=("equal", "adaptive_layerwise"))
    text = answer.table_text()
    assert f"all = {pair}" in text  # spelled out, the widest row would take 148 columns
    assert max(len(line) for line in text.splitlines()) <= 140
