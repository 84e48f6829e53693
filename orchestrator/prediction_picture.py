"""The picture of what teacher and students find on a few images, for tasks that have something to draw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.build import build
from distill.data import Loader, Subset
from distill.slots import TASK
from distill.tasks import Task
from distill.tasks.drawing import Color, Drawing, enlarged
from orchestrator.assemble import assemble
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.palette import INK, MUTED, STYLE
from orchestrator.compare.run_record import RunRecord
from orchestrator.metric_names import in_words, is_share
from orchestrator.outputs import Outputs
from orchestrator.storage import Storage
from orchestrator.teaching import load_teacher, teacher_directory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_IMAGES = 5
INCHES = 2.2
"""Side of an image in the picture."""
MAX_CLASSES = 24
"""Classes that the legend names at most."""


@dataclass(frozen=True)
class Column:
    """One column of the picture.

    Attributes:
        title: what it shows.
        reached: what the model reached that found it; empty where none did.
        images: ``[3, height, width]`` each, uint8.
        colors: of the classes that appear.
    """

    title: str
    reached: str
    images: Sequence[Tensor]
    colors: Mapping[str, Color]

    @classmethod
    def of(cls, title: str, reached: str, drawing: Drawing) -> Column:
        """Return the column of a drawing."""
        return cls(title, reached, drawing.images, drawing.colors)


def draw_predictions(comparison: Comparison, outputs: Outputs, destination: Path) -> bool:
    """Draw image, truth, teacher, student alone and best distilled student, for the first images that rank the arms.

    They are the first five of the validation split, which ``data.split.seed`` decides; under the paper's protocol, of
    the test split. The best student is the best run of the best arm, the student alone that of the same seed where
    there is one.

    Args:
        comparison: of the runs that ended.
        outputs: the experiment's folder, with the weights of its runs.
        destination: the PNG file; one of an earlier session is replaced.

    Returns:
        Whether there is a picture: not where the task draws nothing, or no arm is best.
    """
    destination.unlink(missing_ok=True)
    if comparison.best is None:
        return False
    best = comparison.best_run
    config = _config(outputs, best.key)
    task: Task = build(config["task"], TASK, modules=config["modules"])
    if not task.draws:
        return False
    columns, classes = _columns(comparison, outputs, best, config)
    num_shown = len(columns[0].images)
    split = f"the first {num_shown} {comparison.metric.split} images; data.split.seed {_split_seed(config)} chose them"
    destination.parent.mkdir(parents=True, exist_ok=True)
    _figure(columns, f"What is found on {split}", classes).savefig(destination)
    return True


def _columns(
    comparison: Comparison, outputs: Outputs, best: RunRecord, config: Mapping[str, Any]
) -> tuple[list[Column], Sequence[str]]:
    """Return the columns, and the names of the data's classes."""
    assembly = assemble(_without_sources(config))
    task = assembly.task
    data = assembly.dataset.survey()
    ranks = data.test if data.validation is None else data.validation
    first = Subset(ranks.source, ranks.indices[:NUM_IMAGES])
    loader = Loader(
        first,
        batch_size=max(1, len(first)),
        mean=data.mean,
        std=data.std,
        shuffle=False,
        drop_last=False,
        device=torch.device("cpu"),
    )
    [batch] = loader.epoch(0)
    images = _as_seen(batch.images, data.mean, data.std)
    classes = data.classes

    def found(model: nn.Module) -> Drawing:
        with torch.no_grad():
            return task.draw_output(images, task.run(model.eval(), batch.images), classes)

    columns = [
        Column("image", "", [enlarged(image)[0] for image in images], {}),
        Column.of("truth", "", task.draw_labels(images, batch.labels, classes)),
    ]
    if assembly.teacher is not None:
        directory = teacher_directory(config, outputs.root)
        assert directory is not None
        assembly.teacher.load_state_dict(load_teacher(directory)[0])
        reached = best.teacher(comparison.metric.split, comparison.metric.name)
        columns.append(Column.of("teacher", _value(comparison, reached), found(assembly.teacher)))
    alone = _alone(comparison, best.seed)
    if alone is not None:
        student = assemble(_without_sources(_config(outputs, alone.key))).student
        drawing = found(_loaded(student, outputs, alone))
        columns.append(Column.of("student alone", _reached(comparison, alone), drawing))
    drawing = found(_loaded(assembly.student, outputs, best))
    columns.append(Column.of(f"best: {best.arm}", _reached(comparison, best), drawing))
    return columns, classes


def _config(outputs: Outputs, key: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(Storage(outputs.run_directory(key)).read_text("config.json"))
    return config


def _split_seed(config: Mapping[str, Any]) -> Any:
    return (config["data"].get("split") or {}).get("seed", 0)


def _without_sources(config: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out where initial weights come from: the trained ones are read from the runs."""
    parts = {role: config[role] and config[role] | dict.fromkeys(_SOURCES) for role in _ROLES}
    return {**config, **parts, "paths": {}, "aggregator": {"use": "Equal"}}


_ROLES = ("student", "teacher")
_SOURCES = ("weights", "checkpoint", "weights_backbone")


def _loaded(student: nn.Module, outputs: Outputs, run: RunRecord) -> nn.Module:
    with Storage(outputs.run_directory(run.key)).local("student.pt") as weights:
        student.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    return student


def _alone(comparison: Comparison, seed: int) -> RunRecord | None:
    """Return the student alone of a seed, else of any, that ranks first."""
    runs = [run for arm in comparison.arms if arm.runs.arm.is_alone for run in arm.runs.finished]
    return next((run for run in runs if run.seed == seed), runs[0] if runs else None)


def _as_seen(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> list[Tensor]:
    """Return normalised images ``[batch, channel, height, width]`` as uint8, image by image."""
    scale, shift = (images.new_tensor(values)[:, None, None] for values in (std, mean))
    return list((255 * (images * scale + shift)).round().clamp(0, 255).to(torch.uint8))


def _reached(comparison: Comparison, run: RunRecord) -> str:
    return f"{_value(comparison, comparison.metric.of_run(run))}, seed {run.seed}"


def _value(comparison: Comparison, value: float | None) -> str:
    if value is None:
        return ""
    name = comparison.metric.name
    return f"{comparison.metric.label} {value:.1f} %" if is_share(name) else f"{in_words(name)} {value:.4g}"


def _figure(columns: Sequence[Column], title: str, classes: Sequence[str]) -> Figure:
    """Draw the columns; the legend has the data's order, and at the end what is no class of theirs."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    num_rows = len(columns[0].images)
    found = {name: rgb for column in columns for name, rgb in column.colors.items()}
    colors = {name: found[name] for name in dict.fromkeys((*classes, *found)) if name in found}
    height, width = columns[0].images[0].shape[1:]
    with mpl.rc_context(STYLE | {"font.size": 9}):
        figure = Figure(
            figsize=(INCHES * len(columns), INCHES * num_rows * height / width + 1.4), dpi=110, layout="constrained"
        )
        grid = figure.subplots(num_rows, len(columns), squeeze=False)
        for place, column in enumerate(columns):
            for row, image in enumerate(column.images):
                axes = grid[row][place]
                axes.imshow(np.asarray(image.permute(1, 2, 0)), interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.spines[:].set_visible(False)
            grid[0][place].set_title(f"{_broken(column.title)}\n{column.reached}", color=INK, fontsize=9)
        figure.suptitle(title, fontsize=9, color=MUTED, x=0.01, ha="left")
        named = list(colors.items())[:MAX_CLASSES]
        patches = [Patch(color=_rgb(rgb), label=name) for name, rgb in named]
        if len(colors) > len(named):
            patches.append(Patch(color="none", label=f"and {len(colors) - len(named)} more"))
        if patches:
            figure.legend(handles=patches, loc="outside lower center", ncols=2 * len(columns), frameon=False)
    return figure


def _rgb(color: Color) -> tuple[float, float, float]:
    red, green, blue = color
    return red / 255, green / 255, blue / 255


def _broken(title: str, width: int = 30) -> str:
    """Return a title of one or two lines, which ends in dots where it is longer."""
    import textwrap

    return "\n".join(textwrap.wrap(title, width, max_lines=2, placeholder=" ...", break_on_hyphens=False))
