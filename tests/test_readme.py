"""What the README shows runs."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn import functional as F

README = (Path(__file__).parents[1] / "README.md").read_text()


def diff_after(heading: str) -> str:
    """Return the code that a diff under a heading leads to."""
    section = README.partition(f"### {heading}")[2]
    block = re.search(r"```diff\n(.*?)```", section, flags=re.DOTALL)
    assert block is not None, heading
    lines = [line[1:] for line in block[1].splitlines() if not line.startswith("-")]
    return "\n".join(lines)


def test_the_loop_of_ones_own_trains():
    from distill.models import ResNet8, ResNet20

    torch.manual_seed(0)
    student, teacher_model = ResNet8(num_classes=4, width=4), ResNet20(num_classes=4, width=4)
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    scope: dict = {"F": F, "images": images, "epochs": 2, "loader": [(images, labels, torch.arange(8))] * 3}
    before = student.fc.weight.clone()
    scope |= {"student": student, "teacher_model": teacher_model, "torch": torch}
    exec(diff_after("Distillery inside your own loop"), scope)
    assert not torch.equal(before, student.fc.weight)
    assert float(scope["distiller"]._progress) == pytest.approx(5 / 6), "the last of six steps announced itself"


def test_the_path_of_ones_own_connects_and_trains():
    from distill import Batch, Classification, Distiller, Teacher
    from distill.aggregators import Equal
    from distill.models import ResNet8
    from distill.paths import LogitPath

    scope: dict = {"F": F, "LogitPath": LogitPath}
    exec(diff_after("A path of your own"), scope)
    task, images = Classification(), torch.randn(4, 3, 8, 8)
    teacher = Teacher(ResNet8(num_classes=4), task)
    distiller = Distiller(
        ResNet8(num_classes=4), teacher, {"cosine": scope["CosineLogits"]()}, Equal(), task, sample=images
    )
    step = distiller(Batch(images, torch.arange(4), torch.arange(4)), distiller.targets(teacher(images)))
    step.total.backward()
    assert 0 <= step.layers.item() <= 2


def test_the_aggregator_of_ones_own_weighs():
    from distill import distributed
    from distill.aggregators.base import Aggregator, Losses, weighted_sum

    scope: dict = {"F": F, "Aggregator": Aggregator, "weighted_sum": weighted_sum, "distributed": distributed}
    exec(diff_after("An aggregator of your own"), scope)
    strongest = scope["Strongest"]()
    strongest.connect({"a": ("x",), "b": ("y",)})
    losses = nn.Parameter(torch.tensor([1.0, 3.0]))
    aggregate = strongest(Losses(torch.tensor(0.5), losses, strongest.keys, 0.0))
    assert aggregate.total.item() == pytest.approx(3.5)
    assert aggregate.weights.tolist() == [0.0, 1.0]


def test_the_experiment_file_is_right(tmp_path):
    from orchestrator.config import Design, load

    block = re.search(r"### An experiment file\n\n```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert block is not None
    (tmp_path / "shown.yaml").write_text(block[1])
    assert yaml.safe_load(block[1])["search"]
    assert len(Design(load(tmp_path / "shown.yaml")).planned()) == 3 * 3 * 3 + 3


def test_measurements_are_those_that_were_saved(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))  # benchmarks are no part of the package
    from benchmarks.summary import summary

    section = README.partition("## What it costs")[2].partition("\n## ")[0]
    quoted = [line.removeprefix("    ") for line in section.splitlines() if line.startswith("    ") or not line]
    assert "\n".join(summary()) in "\n".join(quoted)
