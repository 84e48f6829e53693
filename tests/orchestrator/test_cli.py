"""The command line: verbs, exit statuses, and how fast it answers."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import catalogue, cli
from orchestrator.config import UserError

FILE = Path(__file__).with_name("small_experiment.yaml")
CPU_SECONDS = 1.5
"""Generous: 0.2 to 0.3 on an idle machine; of CPU time, because tests run beside others."""


def distillery(*arguments, cwd=None):
    command = [sys.executable, "-m", "orchestrator", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        (["sweep", "--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["sweeep"], 2),
        (["check"], 2),
        (["check", "nowhere.yaml"], 2),
        (["check", FILE, "train.epoch=3", "aggregator=[1"], 2),
        (["ls", "search_spaces"], 0),
    ],
)
def test_help_and_errors_of_structure_answer_at_once_and_without_torch(arguments, status):
    before = cpu_seconds()
    done = distillery(*arguments)
    assert cpu_seconds() - before < CPU_SECONDS
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_a_console_script_exists_for_the_module():
    project = (Path(cli.__file__).parents[1] / "pyproject.toml").read_text()
    assert 'distillery = "orchestrator.cli:main"' in project


def run(*arguments):
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture
def verb(monkeypatch):
    """Replace the lead actor of a verb and see what reaches it."""
    import types

    def install(module, name, result=0, error=None):
        calls = []

        def actor(*args, **kwargs):
            calls.append((args, kwargs))
            if error is not None:
                raise error
            return result

        monkeypatch.setitem(sys.modules, module, types.SimpleNamespace(**{name: actor}))
        return calls

    return install


def test_train_gets_a_checked_experiment_and_how_to_run_it(verb):
    calls = verb("orchestrator.training", "train", result=1)
    assert run("train", FILE, "search=null", "--resume", "seed=3", "--address", "auto") == 1
    [((experiment,), options)] = calls
    assert (experiment.seed, experiment.search, experiment.name) == (3, None, "small_experiment")
    assert experiment.aggregator["alpha_distill"] == 1.0  # defaults are filled in
    assert options == {"resume": True, "address": "auto"}


def test_sweep_and_teach(verb):
    calls = verb("orchestrator.sweep", "sweep")
    assert run("sweep", FILE, "--dry-run") == 0
    assert calls[0][1] == {"resume": False, "address": None, "dry_run": True}
    calls = verb("orchestrator.teachers", "teach")
    assert run("teach", FILE) == 0
    assert calls[0][1] == {"address": None}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", FILE], "search=null"),
        (["sweep", FILE, "search=null"], "distillery train"),
        (["teach", FILE, "teacher=null", "paths={}", "search=null"], "no section 'teacher'"),
    ],
)
def test_the_wrong_verb_for_a_file(arguments, words, capsys):
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err


def test_experiments_are_named_by_name_or_by_file(verb, tmp_path):
    calls = verb("orchestrator.compare", "command")
    assert run("compare", "mine", "--json") == 0
    assert run("compare", FILE) == 0
    assert run("compare", "mine", "--storage", "s3://x", "--against", "alone", "--metric", "val/loss") == 0
    plain = {"storage": "outputs", "as_json": False, "against": None, "metric": None}
    assert calls == [
        (("mine",), {**plain, "as_json": True}),
        (("small_experiment",), plain),
        (("mine",), {**plain, "storage": "s3://x", "against": "alone", "metric": "val/loss"}),
    ]
    calls = verb("orchestrator.ui", "serve")
    assert run("ui", "--port", "5001") == 0
    assert calls == [((None,), {"storage": Path("outputs"), "tracking_uri": None, "port": 5001})]
    calls = verb("orchestrator.sync", "sync")
    assert run("sync", "mine", "--tracking-uri", "http://x") == 0
    assert calls == [((Path("outputs"), "mine"), {"tracking_uri": "http://x"})]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (UserError(["this is wrong", "and that"]), 2, "this is wrong\nand that"),
        (ValueError("a bad value"), 2, "a bad value"),
        (RuntimeError("broken"), 1, "failed: RuntimeError: broken"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_exit_statuses_and_no_traceback(verb, error, status, words, capsys):
    verb("orchestrator.sync", "sync", error=error)
    assert run("sync") == status
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said


def test_debug_shows_the_traceback(verb, caplog):
    verb("orchestrator.sync", "sync", error=RuntimeError("broken"))
    assert run("sync", "--debug") == 1
    assert "Traceback" in caplog.text


def test_unknown_flags_are_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        run("check", FILE, "--jsno")
    assert caught.value.code == 2
    assert "--jsno" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("paths", ["SoftTarget(temperature = 4.0, standardize = false)", "AttentionTransfer(taps = 'auto')"]),
        ("aggregators", ["Fixed(weights, ", "Adaptive(", "modifiers = []"]),
        (
            "modifiers",
            [
                "CosineGate(scope = 'taps', every = 20",
                "Normalize(total = null)",
                "    Keeps every weight below",
                "Ramp(",
            ],
        ),
        ("models", ["ResNet8(width = 16)", "every public model of torchvision.models"]),
        ("datasets", ["Digits(", "FashionMNIST("]),
        ("optimizers", ["torch.optim.AdamW(lr = 0.001"]),
        ("stopping_rules", ["ASHA(grace_period = 1"]),
        ("search_spaces", ["\nquickstart ", "  Question: "]),
    ],
)
def test_ls_shows_names_options_and_summaries(kind, words, capsys):
    assert run("ls", kind) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in words)
    assert "num_classes" not in shown


def test_ls_of_a_name_keeps_the_columns_of_tables(capsys):
    assert run("ls", "COCODetection") == 0
    lines = capsys.readouterr().out.splitlines()
    titles = next(line for line in lines if "form " in line)
    own = next(line for line in lines if "COCO's own" in line)
    assert titles.index("annotations") == own.index("`annotations/instances_<part><year>.json`")
    assert titles.index("images") == own.index("`<part><year>/`")


def test_ls_of_everything_and_of_nothing(capsys):
    assert run("ls") == 0
    shown = capsys.readouterr().out
    assert all(
        f"\n{kind}\n" in f"\n{shown}"
        for kind in ("paths", "aggregators", "modifiers", "models", "datasets", "search_spaces")
    )
    assert "``" not in shown
    assert run("ls", "path") == 2
    assert "Did you mean 'paths'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "head", "words"),
    [
        (
            "LogSum",
            "aggregator: LogSum(granularity = 'path', alpha_distill = 1.0",
            ["Source: ", "    Args:", "epsilon: "],
        ),
        ("InitialLoss", "aggregator: InitialLoss(", ["unlike\n    under LogSum, a path"]),
        ("CosineGate", "modifier: CosineGate(scope = 'taps', every = 20", ["arXiv:1812.02224", "dense: steps"]),
        ("SoftTarget", "path: SoftTarget(temperature = 4.0", ["temperature: "]),
        ("ResNet8", "model: ResNet8(width = 16)", ["stages have `width`, twice"]),
        ("ASHA", "stopping rule: ASHA(", ["reduction_factor"]),
        ("torch.optim.SGD", "optimizer: torch.optim.SGD(lr = 0.001", ["momentum"]),
    ],
)
def test_ls_of_a_name_is_its_documentation(name, head, words, capsys):
    assert run("ls", name) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(head)
    assert all(word in shown for word in words)


def test_every_name_has_documentation_that_a_terminal_can_show(capsys):
    for slot in catalogue.REGISTRIES.values():
        for name in slot.registry():
            assert run("ls", name) == 0
            shown = capsys.readouterr().out
            assert "no documentation" not in shown, name
            assert "``" not in shown, name
            assert ":`" not in shown, name


def test_ls_offers_no_option_that_is_refused(capsys):
    assert run("ls", "GradientDirection") == 0
    assert "modifiers =" not in capsys.readouterr().out


def test_ls_of_a_misspelt_name_suggests_one(capsys):
    assert run("ls", "LogSun") == 2
    assert "nothing is called 'LogSun'" in (said := capsys.readouterr().err)
    assert said.strip().endswith("Did you mean 'LogSum'?")


def test_cp_copies_and_never_overwrites_silently(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run("cp", "quickstart") == 0
    copied = tmp_path / "quickstart.yaml"
    shipped = Path(cli.__file__).parents[1] / "search_spaces" / "quickstart.yaml"
    assert copied.read_bytes() == shipped.read_bytes()
    assert "distillery check quickstart.yaml" in capsys.readouterr().out
    copied.write_text("mine")
    assert run("cp", "quickstart.yaml", ".") == 2
    assert copied.read_text() == "mine"
    assert run("cp", "quickstart", "--force") == 0
    assert copied.read_bytes() == shipped.read_bytes()
    assert run("cp", "quickstart", "deep/er/") == 0
    assert (tmp_path / "deep" / "er" / "quickstart.yaml").exists()
    assert run("cp", "quikstart") == 2
    assert "Did you mean 'quickstart'?" in capsys.readouterr().err


def test_check_for_machines(capsys):
    assert run("check", FILE, "train.epoch=3", "paths.soft_target.temprature=3", "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ok"]
    assert [(mistake["key"], mistake["nearest"]) for mistake in answer["mistakes"]] == [("train.epoch", "epochs")]
    assert run("check", FILE, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"]
    assert answer["runs"] == {"arms": 4, "seeds": 2, "alone": 2, "total": 10}


def test_output_into_a_closed_pipe_is_no_error():
    process = subprocess.run(
        f"{sys.executable} -m orchestrator ls search_spaces | head -c 1", shell=True, capture_output=True, text=True
    )
    assert "Traceback" not in process.stderr
    assert "BrokenPipe" not in process.stderr
