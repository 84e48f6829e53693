"""One run's losses and weights as a picture that a person reads at a glance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

TRAJECTORY, PICTURE = "trajectory.parquet", "trajectory.png"
"""What a run leaves in its folder."""

# Okabe and Ito's colours, which colour-blind people tell apart, the pale ones darkened: they are text here too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA3377", "#3A97C9", "#B87A00", "#7A4B00")
_TASK_COLOUR = "#4D4D4D"
_TASK = "task"
_DASHES = ("-", "--", "-.", ":")
_NUM_BINS = 150  # averaged points of a line: more than that is noise at this size
_POINTS_PER_INCH = 72
_FONT_POINTS = 13.0
_PANEL_INCHES = 3.1  # height
_MAIN_INCHES, _LAYERS_INCHES = 9.0, 5.0  # widths
_LABEL_GAP = 1.15  # of two labels, in heights of the font
_LABEL_INCHES = _LABEL_GAP * _FONT_POINTS / _POINTS_PER_INCH

Series = NDArray[np.float64]


@dataclass(frozen=True)
class _Line:
    label: str
    values: Series
    colour: str
    dash: str = "-"


def draw(source: pa.Table | Path, destination: Path, *, title: str = "") -> Path:
    """Draw losses, weights, and each path's share of the total over a run.

    Three panels: the losses and the weights on logarithmic scales (raw values span decades and compare only with
    themselves), and the share of the total (task and weighted paths add up to one), which compares the paths. Where
    gradients were looked at, a fourth has their cosines with the task's. A path whose layers have weights of their own
    gets a panel of them.

    Args:
        source: the trajectory's table, or its Parquet file.
        destination: the PNG file to write.
        title: what the run is called.

    Returns:
        ``destination``.

    Raises:
        ValueError: the trajectory holds no step.
    """
    table = source if isinstance(source, pa.Table) else pq.read_table(source)
    if table.num_rows == 0:
        raise ValueError("trajectory: must hold at least one step; found none")
    columns = {name: table[name].to_numpy().astype(np.float64) for name in table.column_names}
    _draw(columns, destination, title)
    return destination


def _draw(columns: Mapping[str, Series], destination: Path, title: str) -> None:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    paths = _paths(columns)
    layered = [path for path in paths if _has_own_layer_weights(columns, path)]
    num_panels = 1 if not paths else 4 if _looked_at(columns, paths) else 3
    height = max(_PANEL_INCHES, (len(paths) + 2) * _LABEL_INCHES)  # every line has its label beside it
    num_rows, num_columns = _grid(len(layered), num_panels * height)
    with mpl.rc_context({"font.size": _FONT_POINTS, "axes.spines.top": False, "axes.spines.right": False}):
        # No pyplot: its figures live until they are closed, and it picks a backend for the whole process.
        figure = Figure(
            figsize=(
                _MAIN_INCHES + num_columns * _LAYERS_INCHES,
                max(num_panels * height, num_rows * _PANEL_INCHES) + 0.8,
            ),
            layout="constrained",
        )
        left, *right = _sides(figure, num_columns)
        _draw_paths(left.subplots(num_panels, 1, squeeze=False, sharex=True)[:, 0], columns, paths)
        for side in right:
            _draw_layers(side.subplots(num_rows, num_columns, squeeze=False), columns, layered)
        if title:
            figure.suptitle(title, fontweight="bold", fontsize=_FONT_POINTS + 2, x=0.01, ha="left")
        # The places of the labels depend on the final layout.
        figure.draw_without_rendering()
        for axis in figure.findobj(Axes):
            _spread_labels(axis)
        figure.savefig(destination, dpi=100)


def _grid(num_panels: int, inches: float) -> tuple[int, int]:
    """Return rows and columns for the panels of layers: no higher than ``inches`` as long as that is not too wide."""
    if num_panels == 0:
        return 0, 0
    num_rows = max(int(inches // _PANEL_INCHES), math.isqrt(num_panels - 1) + 1)
    num_columns = math.ceil(num_panels / num_rows)
    return math.ceil(num_panels / num_columns), num_columns


def _sides(figure: Any, num_columns: int) -> list[Any]:
    """Return the figure, or its part for the paths and its part for that many columns of layers."""
    if num_columns == 0:
        return [figure]
    return list(figure.subfigures(1, 2, width_ratios=(_MAIN_INCHES, num_columns * _LAYERS_INCHES)))


def _draw_paths(axes: NDArray[Any], columns: Mapping[str, Series], paths: Sequence[str]) -> None:
    steps = columns["step"]
    colours = {path: _COLOURS[number % len(_COLOURS)] for number, path in enumerate(paths)}
    dashes = {path: _DASHES[number // len(_COLOURS) % len(_DASHES)] for number, path in enumerate(paths)}
    losses = [_Line(_TASK, columns["task/loss"], _TASK_COLOUR)]
    losses += [_Line(path, columns[f"{path}/loss"], colours[path], dashes[path]) for path in paths]
    _lines(axes[0], steps, losses, "Loss")
    if paths:
        weights = [_Line(path, columns[f"{path}/weight"], colours[path], dashes[path]) for path in paths]
        _lines(axes[1], steps, weights, "Weight")
        _shares(axes[2], columns, paths, colours)
    looked_at = _looked_at(columns, paths)
    if looked_at:
        cosines = [_Line(path, columns[f"{path}/cosine"], colours[path], dashes[path]) for path in looked_at]
        _lines(axes[3], steps, cosines, "Cosine of the gradient with the task's")
        axes[3].axhline(0, color=_TASK_COLOUR, linewidth=0.8)
    axes[-1].set_xlabel(_x_label(columns))


def _draw_layers(axes: NDArray[Any], columns: Mapping[str, Series], paths: Sequence[str]) -> None:
    # Down each column first, as one reads the panels beside them.
    for axis, path in zip(axes.T.flat, paths, strict=False):
        _lines(axis, columns["step"], _layer_lines(columns, path), f"Weight of each layer: {path}")
        axis.set_xlabel(_x_label(columns))
    for unused in axes.T.flat[len(paths) :]:
        unused.set_axis_off()


def _paths(columns: Mapping[str, Series]) -> list[str]:
    names = [name.removesuffix("/weight") for name in columns if name.endswith("/weight")]
    return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]


def _looked_at(columns: Mapping[str, Series], paths: Sequence[str]) -> list[str]:
    return [path for path in paths if f"{path}/cosine" in columns]


def _layers(columns: Mapping[str, Series], path: str) -> list[str]:
    weights = [name.removesuffix("/weight") for name in columns if name.endswith("/weight")]
    return [name.removeprefix(f"{path}.") for name in weights if name.startswith(f"{path}.")]


def _has_own_layer_weights(columns: Mapping[str, Series], path: str) -> bool:
    weights = [columns[f"{path}.{layer}/weight"] for layer in _layers(columns, path)]
    return any(not np.allclose(weight, weights[0], rtol=1e-6, equal_nan=True) for weight in weights[1:])


def _layer_lines(columns: Mapping[str, Series], path: str) -> list[_Line]:
    # Layers run from the input to the output: an ordered scale says so where a set of colours would not.
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    layers = _layers(columns, path)
    shades = [to_hex(shade) for shade in colormaps["viridis"](np.linspace(0.0, 0.8, len(layers)))]
    return [_Line(layer, columns[f"{path}.{layer}/weight"], shade) for layer, shade in zip(layers, shades, strict=True)]


def _lines(axis: Any, steps: Series, lines: Sequence[_Line], title: str) -> None:
    for line in lines:
        known = np.isfinite(line.values)
        if not known.any():
            continue
        x, y = _binned(steps[known], line.values[known])
        if known.sum() > len(x):
            axis.plot(steps[known], line.values[known], color=line.colour, alpha=0.18, linewidth=0.6, zorder=1)
        axis.plot(x, y, line.dash, color=line.colour, linewidth=2.2, marker="o" if len(x) == 1 else None, zorder=2)
        _label(axis, steps[-1], y[-1], line.label, line.colour)
    values = np.concatenate([line.values for line in lines])
    values = values[np.isfinite(values)]
    if len(values) and values.min() > 0 and values.max() / values.min() > 3:
        axis.set_yscale("log")
        _plain_log_ticks(axis)
    axis.set_title(title, loc="left", fontsize=_FONT_POINTS, fontweight="bold")
    axis.grid(axis="y", color="#D9D9D9", linewidth=0.6)
    axis.margins(x=0.01)


def _shares(axis: Any, columns: Mapping[str, Series], paths: Sequence[str], colours: Mapping[str, str]) -> None:
    names = [_TASK, *paths]
    task = columns["task/loss"] * columns.get("task_weight", np.float64(1))
    parts = np.stack([task, *(columns[f"{path}/weighted"] for path in paths)])  # [part, step]
    binned = [_binned(columns["step"], part) for part in np.abs(np.nan_to_num(parts))]
    x = binned[0][0]
    heights = np.stack([y for _, y in binned])  # [part, bin]
    shares = 100 * heights / np.maximum(heights.sum(axis=0), np.finfo(np.float64).tiny)
    fills = [_TASK_COLOUR, *(colours[path] for path in paths)]
    axis.stackplot(x, shares, colors=fills, alpha=0.85, linewidth=0)
    tops = np.cumsum(shares[:, -1])
    for name, top, share, colour in zip(names, tops, shares[:, -1], fills, strict=True):
        _label(axis, x[-1], top - share / 2, f"{name} {share:.0f}%", colour)
    axis.set_ylim(0, 100)
    axis.set_title("Share of the total, percent", loc="left", fontsize=_FONT_POINTS, fontweight="bold")
    axis.margins(x=0.01)


def _binned(steps: Series, values: Series) -> tuple[Series, Series]:
    """Average neighbouring steps, so that a line shows the course and not the noise of single batches."""
    if len(steps) <= _NUM_BINS:
        return steps, values
    groups = zip(np.array_split(steps, _NUM_BINS), np.array_split(values, _NUM_BINS), strict=True)
    means = [(part.mean(), _finite_mean(group)) for part, group in groups]
    x, y = np.array(means).T
    return x, y


def _finite_mean(values: Series) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _label(axis: Any, x: float, y: float, text: str, colour: str) -> None:
    axis.annotate(
        text, (x, y), xytext=(6, 0), textcoords="offset points", color=colour, va="center", annotation_clip=False
    )


def _spread_labels(axis: Any) -> None:
    """Move the labels at the ends of the lines apart, each as little as the others allow."""
    labels = sorted(axis.texts, key=lambda text: float(axis.transData.transform(text.xy)[1]))
    if not labels:
        return
    points = axis.figure.dpi / _POINTS_PER_INCH
    gap = _LABEL_GAP * _FONT_POINTS * points
    wanted = np.array([axis.transData.transform(text.xy)[1] for text in labels])
    box = axis.get_window_extent()
    for text, place, want in zip(labels, _apart(wanted, gap, box.y0, box.y1), wanted, strict=True):
        text.set_position((6, (place - want) / points))


def _apart(wanted: Series, gap: float, low: float, high: float) -> Series:
    """Return places at least ``gap`` apart, in the order of ``wanted`` and as near to it as least squares allows.

    They lie between ``low`` and ``high``, where that has room for all of them.
    """
    # With the gaps subtracted the places need only not decrease: isotonic regression, by pooling what collides.
    blocks: list[list[float]] = []
    for number, place in enumerate(wanted):
        blocks.append([place - number * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    means: Series = np.array([np.mean(block) for block in blocks for _ in block], dtype=np.float64)
    # Bounds on all of them only cut that solution off.
    last = high - gap * (len(wanted) - 1)
    places: Series = np.clip(means, low, max(low, last)) + gap * np.arange(len(wanted))
    return places


def _plain_log_ticks(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    few_decades = high / low < 100
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few_decades else (1.0,)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _x_label(columns: Mapping[str, Series]) -> str:
    num_epochs = int(columns["epoch"].max()) if "epoch" in columns else 0
    return f"optimiser step ({num_epochs} epochs)" if num_epochs else "optimiser step"
