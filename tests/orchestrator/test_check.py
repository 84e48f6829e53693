"""Every mistake of a file is one line with its place, before anything starts; a right file shows its plan."""
# ruff: noqa: E501  # a table of cases, one a line

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import search_spaces
from distill.build import build
from distill.models import ResNet8
from distill.trajectory import Trajectory
from orchestrator import cli
from orchestrator.build_branches import build_branches
from orchestrator.check import make_plan
from orchestrator.config import UserError, load

FILE = """\
# Question: does it work?
data:
  use: Digits
  split: {train: 128, validation: 200, teacher: rest}
teacher:
  model: {use: ResNet8, width: 32}
  train: {epochs: 2}
student:
  model: {use: ResNet8}
paths:
  soft_target: {use: SoftTarget, temperature: 4.0}
  attention: {use: AttentionTransfer}
  nst: {use: NSTGram}
aggregator: {use: Adaptive}
train:
  epochs: 3
  batch_size: 32
  optimizer: {use: torch.optim.SGD, lr: 0.05, momentum: 0.9}
search:
  paths: {sets: [[soft_target], [attention], [soft_target, attention, nst]]}
  aggregator: {grid: [{use: Equal}, {use: Adaptive}]}
  seed: {grid: [0, 1]}
run: {metric: val/accuracy}
"""

# What is written instead of what, and what must be said: line, key, words, nearest name.
WRONG = {
    "a misspelt section": ("student:\n", "studnet:\n", 8, "studnet", ["has no key"], "student"),
    "a misspelt key": ("  epochs: 3", "  epoch: 3", 16, "train.epoch", ["has no key"], "epochs"),
    "a misspelt option": ("temperature: 4.0", "temprature: 4.0", 11, "paths.soft_target.temprature", ["SoftTarget has no option"], "temperature"),
    "a misspelt class": ("use: NSTGram", "use: NSTGrm", 13, "paths.nst.use", ["unknown path 'NSTGrm'"], "NSTGram"),
    "a misspelt model": ("{use: ResNet8}", "{use: ResNet9}", 9, "student.model.use", ["unknown model"], "ResNet8"),
    "a torchvision name without its module": ("{use: ResNet8}", "{use: resnet18}", 9, "student.model.use", ["unknown model"], "torchvision.models.resnet18"),
    "a misspelt optimiser": ("torch.optim.SGD", "torch.optim.SDG", 18, "train.optimizer.use", ["no optimizer 'SDG'"], "torch.optim.SGD"),
    "an optimiser by a forbidden way": ("torch.optim.SGD", "torch.optim.swa_utils.torch.os.system", 18, "train.optimizer.use", ["not allowed"], ""),
    "a wrong type": ("batch_size: 32", "batch_size: many", 17, "train.batch_size", ["a whole number", "many"], ""),
    "a bool for a number": ("lr: 0.05", "lr: true", 18, "train.optimizer.lr", ["a number", "true"], ""),
    "a number out of bounds": ("temperature: 4.0", "temperature: -4", 11, "paths.soft_target.temperature", ["above 0", "-4"], ""),
    "an optimiser's own bounds": ("lr: 0.05", "lr: -1", 18, "train.optimizer.lr", ["Invalid learning rate"], ""),
    "a word for a bool": ("  epochs: 3", "  epochs: 3\n  channels_last: yes", 17, "train.channels_last", ["write true"], ""),
    "an option of a searched value": ("{use: Equal},", "{use: Equal, alpha: 2},", 21, "search.aggregator.grid.0.alpha", ["Equal has no option"], "alpha_distill"),
    "an unknown path in a set": ("[attention],", "[atention],", 20, "search.paths.sets.1.0", ["there is no path 'atention'"], "attention"),
    "a duplicate key": ("  batch_size: 32", "  batch_size: 32\n  epochs: 4", 18, "train.epochs", ["lines 16 and 18"], ""),
    "a tab": ("  epochs: 3", "\tepochs: 3", 16, "", ["indents by spaces"], ""),
    "an ambiguous number": ("epochs: 3", "epochs: 010", 16, "train.epochs", ["write 10"], ""),
    "a missing data folder": ("  use: Digits", "  use: FashionMNIST\n  root: /nowhere/at/all", 4, "data.root", ["/nowhere/at/all"], ""),
    "a data folder behind an unknown scheme": ("  use: Digits", "  use: FashionMNIST\n  root: s4://bucket/x", 4, "data.root", ["cannot open s4://bucket/x"], "s3"),
    "a data folder that is not behind its URI": ("  use: Digits", "  use: FashionMNIST\n  root: memory://nowhere/at/all", 4, "data.root", ["memory://nowhere/at/all"], ""),
    "an impossible split": ("train: 128", "train: 5000", 4, "data.split.train", ["5,000"], ""),
    "a missing tap": ("{use: AttentionTransfer}", "{use: AttentionTransfer, taps: [{student: layer9, teacher: layer1}]}", 12, "paths.attention", ["layer9"], ""),
    "an unreadable checkpoint": ("  train: {epochs: 2}", "  checkpoint: nowhere.pt", 7, "teacher.checkpoint", ["nowhere.pt"], ""),
    "weights that the model has not": ("  model: {use: ResNet8}", "  model: {use: ResNet8}\n  weights: DEFAULT", 10, "student.weights", ["checkpoint"], ""),
    "backbone weights for a model without one": ("  model: {use: ResNet8}", "  model: {use: ResNet8}\n  weights_backbone: DEFAULT", 10, "student.weights_backbone", ["is for dense models"], ""),
    "backbone weights that are not torchvision's": ("{use: ResNet8}", "{use: FCN, backbone: {use: ResNet8}}\n  weights_backbone: DEFAULT", 10, "student.weights_backbone", ["found backbone ResNet8"], ""),
    "grey images for a coloured backbone": ("{use: ResNet8}", "{use: FCN, backbone: {use: torchvision.models.resnet18}}", 9, "student.model.backbone", ["ResNet takes 3 channels, but the images have 1"], ""),
    "grey images for a coloured model": ("{use: ResNet8}", "{use: torchvision.models.resnet18}", 9, "student.model.use", ["set data.channels to 3"], ""),
    "an aggregator that takes no set": ("{use: Equal},", "{use: Fixed, weights: {nst: 1}},", 21, "search.aggregator.grid.0", ["weights"], ""),
    "a schedule that needs a metric": ("  epochs: 3", "  epochs: 3\n  scheduler: {use: torch.optim.lr_scheduler.ReduceLROnPlateau}", 17, "train.scheduler.use", ["wants metrics"], ""),
    "a schedule that needs momentum": ("SGD, lr: 0.05, momentum: 0.9}", "Adagrad, lr: 0.05}\n  scheduler: {use: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.1}", 19, "train.scheduler", ["momentum"], ""),
    "a module that is not there": ("aggregator: {use: Adaptive}", "modules: [not_there_at_all]", 14, "modules.0", ["No module named 'not_there_at_all'"], ""),
    "paths without a teacher": ("teacher:\n  model: {use: ResNet8, width: 32}\n  train: {epochs: 2}\n", "", 7, "paths", ["add the section 'teacher'"], ""),
    "a stopping rule without validation": ("validation: 200, teacher: rest", "protocol: paper", 4, "data.split", ["paper"], ""),
    "too few images for a batch": ("train: 128", "train: 20", 2, "data", ["lower train.batch_size"], ""),
    "a sampled key without a number of arms": ("seed: {grid", "train.optimizer.lr: {loguniform: [1e-3, 1]}\n  seed: {grid", 22, "search.train.optimizer.lr", ["run.num_arms"], ""),
    "a misspelt metric": ("val/accuracy", "val/acuracy", 23, "run.metric", ["must be"], "val/accuracy"),
    "a misspelt stopping rule": ("run: {", "run: {scheduler: {use: AHSA}, ", 23, "run.scheduler.use", ["unknown stopping rule"], "ASHA"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(text: str, capsys, *settings: str) -> tuple[int, str]:
    Path("experiment.yaml").write_text(text)
    status = cli.main(["check", "experiment.yaml", *settings])
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return status, shown.err if status else shown.out


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_answered_with_line_key_rule_and_suggestion(case, folder, capsys):
    old, new, line, key, words, nearest = WRONG[case]
    assert FILE.count(old) >= 1
    status, said = check(FILE.replace(old, new, 1), capsys)
    assert status == 2
    [mistake] = [text for text in said.splitlines() if text.startswith(f"experiment.yaml:{line}: {key}")] or [said]
    assert mistake.startswith(f"experiment.yaml:{line}: {key}"), said
    assert all(word in mistake for word in words), mistake
    assert (f"Did you mean '{nearest}'" in mistake) if nearest else ("Did you mean" not in mistake), mistake
    assert len(said.splitlines()) == 1, said


def test_mistakes_of_structure_come_all_at_once(folder, capsys):
    text = (
        FILE.replace("epochs: 3", "epoch: 3")
        .replace("batch_size: 32", "batch_size: no")
        .replace("run: {", "run: {x: 1, ")
    )
    status, said = check(text, capsys, "seed=-1")
    assert status == 2
    starts = ["command line: seed", "experiment.yaml:16: train.epoch"]
    starts += ["experiment.yaml:17: train.batch_size", "experiment.yaml:23: run.x"]
    assert [line[: len(start)] for line, start in zip(said.splitlines(), starts, strict=True)] == starts


def test_mistakes_of_what_is_named_come_all_at_once(folder, capsys):
    text = FILE.replace("NSTGram", "NSTGrm").replace("SGD, lr", "SGD, rl").replace("{use: Equal}", "{use: Equl}")
    text = text.replace("{use: ResNet8, width: 32}", "{use: ResNet8, widht: 32}").replace("train: 128", "train: no")
    status, said = check(text, capsys)
    assert status == 2
    assert [line.split(": ")[1] for line in said.splitlines()] == [
        "data.split.train",
        "teacher.model.widht",
        "paths.nst.use",
        "train.optimizer.rl",
        "search.aggregator.grid.0.use",
    ]


def test_what_yaml_would_misread_is_read_as_it_looks(folder, capsys):
    status, said = check(FILE.replace("lr: 0.05", "lr: 1e-3"), capsys)
    assert status == 0, said
    assert load("experiment.yaml").train.optimizer["lr"] == 0.001


def test_mistakes_on_the_command_line_name_it_and_show_the_present_value(folder, capsys):
    status, said = check(FILE, capsys, "train.epoch=5")
    assert status == 2
    assert said.startswith("command line: train.epoch: ")
    assert said.strip().endswith("Did you mean 'epochs' (now 3)?")


def test_the_plan_of_a_right_file(folder, capsys):
    status, shown = check(FILE, capsys)
    assert status == 0
    for line in [
        "experiment: 14 runs = 6 arms (2 aggregators x 3 path sets) x 2 seeds + 2 of the student alone",
        "Student ResNet8, 77,754 parameters, on Digits (1x8x8, 10 classes)",
        "  attention: AttentionTransfer, no adapter",
        "    layer2 [32, 4, 4] <- layer2 [64, 4, 4]",
        "Results: outputs/experiment",
    ]:
        assert line in shown.splitlines(), shown
    assert "128 for training" in shown
    assert not Path("outputs").exists()


@pytest.mark.parametrize(
    ("options", "workers", "said"),
    [
        ("", 2, ", compares the images of each worker's own share"),
        (", gather: true", 2, ", compares the images of all workers"),
        ("", 1, ""),
    ],
)
def test_the_plan_says_whose_images_a_path_compares(folder, capsys, options, workers, said):
    file = FILE.replace("{use: NSTGram}", f"{{use: SP{options}}}").replace("run: {", f"run: {{workers: {workers}, ")
    status, shown = check(file, capsys)
    assert status == 0
    assert f"  nst: SP, no adapter{said}" in shown.splitlines()


def test_the_plan_in_numbers(folder):
    Path("experiment.yaml").write_text(FILE)
    plan = make_plan(load("experiment.yaml")).plain()
    [branch] = plan["branches"]
    # By hand: adapters 16x32 + 32x64 + 64x128 weights, and two numbers of BatchNorm a channel.
    nst = next(path for path in branch["paths"] if path["name"] == "nst")
    assert nst["adapter_parameters"] == 16 * 32 + 32 * 64 + 64 * 128 + 2 * (32 + 64 + 128)
    assert [pair["teacher_shape"] for pair in nst["connections"]] == [(32, 8, 8), (64, 4, 4), (128, 2, 2)]
    student = sum(parameter.numel() for parameter in ResNet8(num_classes=10, in_channels=1).parameters())
    teacher = sum(parameter.numel() for parameter in ResNet8(num_classes=10, in_channels=1, width=32).parameters())
    assert branch["student_parameters"] == student
    assert branch["compression"] == pytest.approx(teacher / student)
    assert plan["runs"] == {"arms": 6, "seeds": 2, "alone": 2, "total": 14}
    assert plan["samples"]["for training"] == 128
    assert json.loads(json.dumps(plan))["name"] == "experiment"


def test_every_pair_of_models_and_every_variant_of_a_path_is_built(folder):
    text = FILE.replace("  seed:", "  student: {grid: [{model: {use: ResNet8}}, {model: {use: ResNet20}}]}\n  seed:")
    Path("experiment.yaml").write_text(text)
    assert [branch.student for branch in build_branches(load("experiment.yaml"))] == ["ResNet8", "ResNet20"]
    taps = "  paths.attention.taps: {grid: [auto, [{student: layer1, teacher: layer7}]]}\n  seed:"
    Path("experiment.yaml").write_text(FILE.replace("  seed:", taps))
    with pytest.raises(UserError, match=r"experiment.yaml:22: search\.paths\.attention.*layer7"):
        build_branches(load("experiment.yaml"))


def test_images_behind_a_uri_are_counted_and_looked_at_where_they_are(folder, monkeypatch):
    monkeypatch.setenv("DISTILLERY_CACHE", str(folder / "cache"))
    for name in ("cat", "dog"):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(100):
            Image.new("L", (8, 8), number).save(folder / "images" / name / f"{number}.png")
    data = f"{{use: ImageFolder, root: local://{folder}/images, size: 8, channels: 1, split: {{validation: 40, test: 20}}}}"
    old = FILE.partition("data:\n")[2].partition("teacher:\n")[0]
    Path("experiment.yaml").write_text(FILE.replace(f"data:\n{old}", f"data: {data}\n"))
    plan = make_plan(load("experiment.yaml"))
    assert plan.samples == {"for training": 140, "for the teacher": 140, "validation": 40, "test": 20}
    assert not (folder / "cache").exists()


def test_a_data_set_is_asked_for_its_files_once_for_all_branches(folder, monkeypatch):
    built = []
    monkeypatch.setattr(
        "orchestrator.build_branches.build",
        lambda spec, slot, **more: (built.append(spec["use"]), build(spec, slot, **more))[1],
    )
    Path("experiment.yaml").write_text(FILE)
    build_branches(load("experiment.yaml"))
    assert built.count("Digits") == 1


def test_a_checkpoint_is_loaded_to_see_whether_it_fits(folder, capsys):
    torch.save(ResNet8(num_classes=10, in_channels=1, width=32).state_dict(), "right.pt")
    torch.save(ResNet8(num_classes=10, in_channels=1, width=16).state_dict(), "wrong.pt")
    Path("torn.pt").write_bytes(Path("right.pt").read_bytes()[:1000])
    for name, expected in [("right.pt", 0), ("wrong.pt", 2), ("torn.pt", 2)]:
        status, said = check(FILE.replace("  train: {epochs: 2}", f"  checkpoint: {name}"), capsys)
        assert status == expected, said
        assert status == 0 or said.startswith("experiment.yaml:7: teacher.checkpoint: ")


def test_a_path_that_is_in_every_set_cannot_be_told(folder, capsys):
    status, shown = check(FILE.replace("[[soft_target], [attention],", "[[soft_target, nst],"), capsys)
    assert status == 0
    assert "Cannot tell: the effect of soft_target" in shown


DECIDABLE = {
    "several seeds": (
        "",
        "Smallest effects that four of five such sweeps would decide, in units of the noise of one run: ",
    ),
    "one seed": (
        "search.seed={grid: [0]}",
        "Nothing can be decided with one seed, which shows no noise: give search.seed several",
    ),
    "no searched seed": (
        "search={paths: {sets: [[nst], [attention, nst]]}}",
        "Nothing can be decided with one seed, which",
    ),
    "arms that are proposed": (
        "run.num_arms=3",
        "What can be decided is not known beforehand: with run.num_arms, arms are",
    ),
    "no sweep": ("search=null", ""),
}


@pytest.mark.parametrize("case", DECIDABLE)
def test_the_plan_says_what_can_be_decided_or_why_nothing(case, folder, capsys):
    setting, line = DECIDABLE[case]
    status, shown = check(FILE, capsys, *filter(None, [setting]))
    assert status == 0, shown
    said = [each for each in shown.splitlines() if "decide" in each]
    assert len(said) == bool(line)
    assert all(each.startswith(line) for each in said)
    assert ("the noise of one run, in points of the metric, is measured by the sweep itself" in shown) == (not setting)


@pytest.mark.parametrize(
    ("held_out", "words"),
    [
        (
            0.9,
            ["takes 115 of the 128 training images for DistPro", "the 13 that are left are less than one batch of 32"],
        ),
        (0.001, ["must take at least 2 of the training images"]),
    ],
)
def test_images_that_are_held_out_are_named_as_what_is_too_many_or_too_few(held_out, words, folder, capsys):
    text = FILE.replace("{use: Equal}", f"{{use: DistPro, held_out: {held_out}}}")
    status, said = check(text, capsys)
    assert status == 2
    assert said.startswith("experiment.yaml:21: search.aggregator.grid.0.held_out: "), said
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    ("spec", "key", "words"),
    [
        ("Fixed, weights: {soft_target: 1, atention: 1, nst: 1}", "weights", "Did you mean 'attention'?"),
        ("Chebyshev, weights: {soft_target: 1, atention: 1, nst: 1}", "weights", "Did you mean 'attention'?"),
        ("Order, order: [soft_target, atention, nst]", "order", "Did you mean 'attention'?"),
        ("LogSum, granularity: {all: [soft_target, atention, nst]}", "granularity", "Did you mean 'attention'?"),
        ("LogSum, granularity: {all: [soft_target, attention, nst], rest: []}", "granularity", "empty groups: rest;"),
        ("GradientBalance, method: FairGrad", "options.alpha", "must be given: FairGrad has no default for it"),
        ("GradientBalance, method: PCD, options: {tua: 1}", "options.tua", "Did you mean 'tau'?"),
        ("GradientBalance, method: Krum, options: {n_byzantine: 2}", "options.n_byzantine", "at least 5 gradients"),
    ],
)
def test_what_an_aggregator_refuses_is_said_under_its_option(spec, key, words, folder, capsys):
    text = FILE.partition("search:")[0].replace("{use: Adaptive}", f"{{use: {spec}}}")
    status, said = check(text, capsys)
    assert status == 2
    assert said.startswith(f"experiment.yaml:14: aggregator.{key}: "), said
    assert words in said
    assert len(said.splitlines()) == 1


LAYERS = ("soft_target.logits", "attention.layer1", "attention.layer2", "attention.layer3")
BY_LAYER = {
    "Fixed": ("weights", "{{{0}: 1, {1}: 2, {2}: 3, {3}: 4}}"),
    "Chebyshev": ("weights", "{{{0}: 1, {1}: 2, {2}: 3, {3}: 4}}"),
    "Order": ("order", "[{0}, {1}, {2}, {3}]"),
}
"""Aggregators that take the names of what they weigh: under which option, and how it is written."""


def record(layers: dict[str, tuple[str, ...]]) -> str:
    """Write a run's trajectory and return its name."""
    trajectory = Trajectory(layers)
    ones = [1.0] * sum(map(len, layers.values()))
    trajectory.append(step=0, epoch=1, progress=0.5, total=1.0, task=1.0, losses=ones, weights=ones)
    trajectory.write(Path("record.parquet"))
    return "record.parquet"


def by_layer(spec: str) -> str:
    """Return a file of one run with this aggregator over ``LAYERS``."""
    text = FILE.partition("search:")[0].replace("  nst: {use: NSTGram}\n", "")
    return text.replace("{use: Adaptive}", spec)


@pytest.mark.parametrize("use", BY_LAYER)
def test_names_of_layers_are_right_or_wrong_once_the_models_are_built(use, folder, capsys):
    option, names = BY_LAYER[use]
    right = f"{{use: {use}, granularity: layer, {option}: {names.format(*LAYERS)}}}"
    assert check(by_layer(right), capsys)[0] == 0
    status, said = check(by_layer(right.replace("soft_target.logits", "soft_target.output")), capsys)
    assert status == 2
    assert said.startswith(f"experiment.yaml:13: aggregator.{option}: "), said
    assert "soft_target.output" in said
    assert all(name in said for name in LAYERS)
    assert len(said.splitlines()) == 1


def test_a_record_of_layers_is_right_or_wrong_once_the_models_are_built(folder, capsys):
    replay = by_layer("{use: Replay, granularity: layer, file: record.parquet}")
    record({"soft_target": ("logits",), "attention": ("layer1", "layer2", "layer3")})
    assert check(replay, capsys)[0] == 0
    record({"soft_target": ("logits",), "attention": ("layer1", "layer2")})
    status, said = check(replay, capsys)
    assert status == 2
    assert said.startswith("experiment.yaml:13: aggregator.file: "), said
    assert "attention.layer3" in said


def test_how_many_gradients_a_method_gets_is_known_once_the_models_are_built(folder, capsys):
    pytest.importorskip("torchjd")
    # Krum needs the bad ones and three more; task, one layer of soft_target and three of attention are five.
    krum = "{use: GradientBalance, method: Krum, granularity: layer, options: {n_byzantine: 2}}"
    assert check(by_layer(krum), capsys)[0] == 0
    status, said = check(by_layer(krum.replace("n_byzantine: 2", "n_byzantine: 3")), capsys)
    assert status == 2
    assert said.startswith("experiment.yaml:13: aggregator."), said


def test_weights_of_layers_are_cut_down_to_the_paths_of_an_arm(folder, capsys):
    weights = ", ".join(f"{name}: 1" for name in LAYERS)
    grid = f"{{use: Fixed, granularity: layer, weights: {{{weights}}}}}"
    text = FILE.replace("{use: Equal}", grid).replace(", nst]", "]").replace("  nst: {use: NSTGram}\n", "")
    status, shown = check(text, capsys)
    assert status == 0, shown
    assert "6 arms" in shown
    assert "left out" not in shown
    status, said = check(text.replace("attention.layer2: 1, ", ""), capsys)
    assert status == 2
    assert all(line.startswith("experiment.yaml:20: search.aggregator.grid.0.weights: ") for line in said.splitlines())


SHIPPED = sorted(Path(search_spaces.__file__).parent.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_search_spaces_open_with_question_time_and_command(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert head[0].startswith("# Question: ")
    assert any("minute" in line or "hour" in line or "day" in line for line in head)
    assert any(f"distillery sweep search_spaces/{path.name}" in line for line in head)


@pytest.mark.parametrize("name", ["quickstart", "quickstart_detection", "quickstart_segmentation"])
def test_the_quickstart_is_right(name, capsys):
    [path] = [path for path in SHIPPED if path.stem == name]
    assert cli.main(["check", str(path)]) == 0
    assert "3 of the student alone" in capsys.readouterr().out
