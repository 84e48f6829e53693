"""The command: finds the experiment, prints the answer, and loads nothing heavy."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.compare import command

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def storage(sweep):
    for seed in range(3):
        wobble = (0.1, -0.1, 0.02)[seed]
        sweep.add("none", "", seed, 80.0 + wobble)
        sweep.add("equal", "good", seed, 82.0 - wobble)
        sweep.add("equal", "bad", seed, 78.0)
    return str(sweep.save().parent)


def test_prints_the_answer_and_leaves_a_report(storage, capsys):
    assert command("digits", storage=storage, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Which paths help ResNet8 learn from ResNet20 on Digits?")
    assert lines[2] == "Helps: good. Hurts: bad. Undecided: none."
    assert lines[3].startswith("Best arm: equal with good, +2.0 points over the student alone")
    assert not any("\033" in line for line in lines)  # no terminal, no colour
    report = Path(lines[-1].removeprefix("Report: "))
    assert report == Path(storage) / "digits" / "compare" / "report.html"
    assert report.is_file()


def test_all_arms_are_held_against_the_one_that_is_named(storage, capsys):
    assert command("digits", storage=storage, as_json=False, against="equal/bad") == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("aggregator"))
    header = lines[start]
    rows = {" ".join(line.split()[:2]): line[header.index("over --against") :] for line in lines[start + 2 : start + 6]}
    assert "over Equal" not in header
    assert rows["equal bad"].startswith("(reference)")
    assert rows["equal good"].startswith("+3.99 [")  # the means of the seeds: 81.99 and 78
    assert rows["- student"].startswith("+2.01 [")
    assert "over --against: over equal/bad" in lines


def test_the_difference_to_the_named_arm_is_paired_and_in_the_numbers(storage, capsys):
    assert command("digits", storage=storage, as_json=True, against="alone") == 0
    data = json.loads(capsys.readouterr().out)
    found = {arm["arm"]: arm["over_reference"] for arm in data["arms"]}
    assert data["against"] == "alone"
    assert found["alone"] is None
    assert found["equal/good"] == {arm["arm"]: arm["over_alone"] for arm in data["arms"]}["equal/good"]


def test_an_arm_that_is_not_there_is_answered_with_the_nearest(storage, capsys):
    assert command("digits", storage=storage, as_json=True, against="equal/godo") == 2
    assert "found 'equal/godo'; nearest: equal/good" in capsys.readouterr().err


@pytest.fixture
def two_settings(sweep):
    """A second learning rate with a student alone of its own, and an arm that one seed failed."""
    for seed in range(3):
        for rate, more in ((0.1, 0.0), (0.2, 1.0)):
            context = {"train.optimizer.lr": rate}
            sweep.add("none", "", seed, 80.0 + more + 0.1 * seed, context=context)
            sweep.add("equal", "a", seed, 81.0 + more - 0.1 * seed**2, context=context)
        status = "failed" if seed == 2 else "finished"
        sweep.add("logsum", "a", seed, 82.0, context={"train.optimizer.lr": 0.1}, status=status)
    return str(sweep.save().parent)


def test_an_arm_with_another_student_alone_cannot_be_told_and_is_no_reference(two_settings, capsys):
    assert command("digits", storage=two_settings, as_json=False, against="equal/a lr=0.1") == 0
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("aggregator"))
    cells = {
        tuple(line.split()[:3]): line[header.index("over --against") :].split()[0]
        for line in lines
        if line.startswith(("equal", "-  "))
    }
    assert cells["equal", "a", "lr=0.1"] == "(reference)"
    assert cells["equal", "a", "lr=0.2"] == "-"
    assert "over --against is - where it cannot be told: the student alone is another, or no seed is shared" in lines
    assert command("digits", storage=two_settings, as_json=True, against="equal/a lr=0.1") == 0
    arms = {arm["arm"]: arm for arm in json.loads(capsys.readouterr().out)["arms"]}
    assert [name for name, arm in arms.items() if arm["is_reference"]] == ["equal/a lr=0.1"]
    assert {name for name, arm in arms.items() if arm["over_reference"] is None} == {
        "equal/a lr=0.1", "equal/a lr=0.2", "alone lr=0.2",
    }  # fmt: skip


def test_where_all_can_be_told_there_is_no_note(storage, capsys):
    assert command("digits", storage=storage, as_json=False, against="alone") == 0
    assert "cannot be told" not in capsys.readouterr().out


def test_an_arm_that_was_left_out_is_answered_with_the_reason(two_settings, capsys):
    assert command("digits", storage=two_settings, as_json=False, against="logsum/a lr=0.1") == 2
    error = capsys.readouterr().err
    assert "seed 2 failed: no reason recorded; left out of the comparison" in error
    assert "nearest" not in error


def test_the_report_says_how_it_was_made(two_settings):
    report = Path(two_settings) / "digits" / "compare" / "report.html"
    command("digits", storage=two_settings, as_json=False, against="equal/a lr=0.1")
    assert "distillery compare digits --against &#x27;equal/a lr=0.1&#x27;\n" in report.read_text()
    command("digits", storage=two_settings, as_json=False)
    assert "distillery compare digits\n" in report.read_text()


def test_json_is_one_object_with_the_same_sentences(storage, capsys):
    assert command("digits", storage=storage, as_json=True) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["sentences"][0] == "Helps: good. Hurts: bad. Undecided: none."
    assert {path["path"]: path["verdict"] for path in data["paths"]} == {"good": "helps", "bad": "hurts"}
    assert not (Path(storage) / "digits" / "compare").exists()


@pytest.mark.parametrize("form", ["{storage}/digits", "digits.yaml", "some/where/digits.yml"])
def test_a_folder_or_a_file_names_the_experiment(storage, form, capsys):
    assert command(form.format(storage=storage), storage=storage, as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["experiment"] == "digits"


def test_the_name_in_a_file_counts_more_than_its_stem(storage, tmp_path, capsys):
    file = tmp_path / "other.yaml"
    file.write_text("name: digits\npaths: {}\n")
    assert command(str(file), storage=storage, as_json=True) == 0
    file.write_text("name: [broken")
    assert command(str(file), storage=storage, as_json=True) == 2
    assert "no experiment called 'other'" in capsys.readouterr().err


def test_a_miss_names_the_nearest(storage, capsys):
    assert command("digts", storage=storage, as_json=False) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "no experiment called 'digts'" in captured.err
    assert "did you mean 'digits'?" in captured.err


def test_a_far_miss_lists_what_there_is(storage, capsys):
    assert command("zzz", storage=storage, as_json=False) == 2
    assert "it holds digits" in capsys.readouterr().err


def test_an_empty_storage_says_so(tmp_path, capsys):
    assert command("digits", storage=str(tmp_path / "none"), as_json=False) == 2
    assert "holds none yet" in capsys.readouterr().err


@pytest.mark.parametrize("against", [None, "equal/a", "equal/b"])
def test_an_experiment_without_a_finished_run_fails(sweep, capsys, against):
    sweep.add("equal", "a", 0, None, status="failed", reason="out of memory")
    storage = str(sweep.save().parent)
    assert command("digits", storage=storage, as_json=False, against=against) == 1
    error = capsys.readouterr().err
    assert "no run of 'digits' has finished yet" in error
    assert "out of memory" in error


@pytest.mark.parametrize(("no_color", "painted"), [(None, True), ("1", False)])
def test_colour_on_a_terminal_unless_unwanted(storage, monkeypatch, capsys, no_color, painted):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    command("digits", storage=storage, as_json=False)
    assert ("\033[31m" in capsys.readouterr().out) == painted


def test_nothing_heavy_is_imported(storage):
    code = (
        "import sys\nfrom orchestrator.compare import command\n"
        f"assert command('digits', storage={storage!r}, as_json=True) == 0\n"
        "heavy = {'torch', 'ray', 'mlflow', 'matplotlib', 'pyarrow', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def several_metrics(sweep):
    """Paths of which ``thin`` gains accuracy and loses the rare class, and ``even`` the contrary."""
    for seed in range(3):
        for aggregator, path, accuracy, rare, loss in (
            ("none", "", 80.0, 20.0, 0.5),
            ("equal", "thin", 82.0, 15.0, 0.7),
            ("equal", "even", 78.0, 24.0, 0.4),
        ):
            wobble = 0.0 if path else (0.1, -0.1, 0.02)[seed]
            measured = {"accuracy": accuracy + wobble, "iou/rare": rare - wobble, "loss": loss + 0.01 * wobble}
            sweep.add(aggregator, path, seed, accuracy, validation=measured, test={"iou/rare": rare - 1})
    return str(sweep.save().parent)


def test_another_metric_of_the_runs_answers_in_its_own_words(several_metrics, capsys):
    assert command("digits", storage=several_metrics, as_json=False) == 0
    main = Path(several_metrics) / "digits" / "compare" / "report.html"
    before, first = main.read_text(), capsys.readouterr().out
    assert "Helps: thin. Hurts: even." in first
    assert command("digits", storage=several_metrics, as_json=False, metric="val/iou/rare") == 0
    answer = capsys.readouterr().out
    assert "Helps: even. Hurts: thin." in answer
    assert "Best arm: equal with even, +4.0 points over the student alone" in answer
    assert "test 23.0 +- 0.0" in answer
    assert "points of validation IoU of rare" in answer
    assert "Caution: val/accuracy ranks this sweep, not val/iou/rare" in answer
    report = Path(answer.splitlines()[-1].removeprefix("Report: "))
    assert report == main.parent / "iou-rare" / "report.html"
    assert "compared by validation IoU of rare" in report.read_text()
    assert main.read_text() == before  # the sweep's own answer stays


def test_of_a_loss_less_is_better_and_the_prefix_may_be_left_out(several_metrics, capsys):
    assert command("digits", storage=several_metrics, as_json=True, metric="loss") == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["metric"], data["instead_of"], data["higher_is_better"]) == ("loss", "val/accuracy", False)
    assert data["best"] == "equal/even"
    assert {item["path"]: item["verdict"] for item in data["paths"]} == {"even": "helps", "thin": "hurts"}


def test_the_metric_that_ranks_may_be_named(several_metrics, capsys):
    assert command("digits", storage=several_metrics, as_json=True, metric="val/accuracy") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["instead_of"] is None
    assert data["cautions"] == []


def test_a_metric_that_was_not_measured_is_answered_with_the_nearest(several_metrics, capsys):
    assert command("digits", storage=several_metrics, as_json=False, metric="val/iou/rear") == 2
    error = capsys.readouterr().err
    assert "--metric: no finished run of 'digits' has 'val/iou/rear' on its validation images" in error
    assert "they have val/accuracy, val/loss; did you mean 'val/iou/rare'?" in error
