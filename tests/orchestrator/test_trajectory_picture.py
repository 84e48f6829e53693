from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.figure import Figure
from PIL import Image

from orchestrator.trajectory_picture import _apart, draw

NUM_STEPS = 200


def _table(num_steps=NUM_STEPS, paths=("attention", "soft_target"), layers=(), layer_weights=(1.0, 2.0)):
    """Losses 4, 8, ... and weights 1, 1/2, ..., so that every share can be said in advance: task 2, paths 4 each."""
    columns = {
        "step": np.arange(num_steps),
        "epoch": 1 + np.arange(num_steps) // 100,
        "progress": np.arange(num_steps) / num_steps,
        "total/loss": np.full(num_steps, 2.0 + 4 * len(paths)),
        "task/loss": np.full(num_steps, 2.0),
    }
    for number, path in enumerate(paths, start=1):
        columns |= {
            f"{path}/loss": np.full(num_steps, 4.0 * number),
            f"{path}/weight": np.full(num_steps, 1.0 / number),
            f"{path}/weighted": np.full(num_steps, 4.0),
        }
        for layer, weight in zip(layers, layer_weights, strict=False):
            columns |= {f"{path}.{layer}/{what}": np.full(num_steps, weight) for what in ("loss", "weight", "weighted")}
    return pa.table(columns)


@pytest.fixture
def shown(monkeypatch):
    """What the picture says, read from the figure at the moment when it is saved."""
    found = {}
    real_savefig = Figure.savefig

    def savefig(self, *args, **options):
        for axis in self.axes:
            if axis.axison:
                found[axis.get_title(loc="left")] = axis
        found["title"] = self.get_suptitle()
        return real_savefig(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return found


def _labels(axis):
    return {text.get_text() for text in axis.texts}


def test_shows_losses_weights_and_shares_with_direct_labels(tmp_path, shown):
    file = draw(_table(), tmp_path / "trajectory.png", title="adaptive s0")
    with Image.open(file) as image:
        width, height = image.size
        assert image.format == "PNG"
        assert 0.6 < width / height < 1.5
        assert np.asarray(image.convert("L")).std() > 10
    assert list(shown) == ["Loss", "Weight", "Share of the total, percent", "title"]
    assert shown["title"] == "adaptive s0"
    assert _labels(shown["Loss"]) == {"task", "attention", "soft_target"}
    assert _labels(shown["Weight"]) == {"attention", "soft_target"}
    # 2 of the task and 4 of each path, whatever their losses and weights are.
    assert _labels(shown["Share of the total, percent"]) == {"task 20%", "attention 40%", "soft_target 40%"}
    assert shown["Loss"].get_yscale() == "log"
    assert all(text.get_fontsize() >= 12 for text in shown["Loss"].texts)


def test_the_share_of_a_task_with_a_weight_is_by_that_weight(tmp_path, shown):
    table = _table().append_column("task_weight", pa.array(np.full(NUM_STEPS, 6.0)))
    draw(table, tmp_path / "trajectory.png")
    assert _labels(shown["Share of the total, percent"]) == {"task 60%", "attention 20%", "soft_target 20%"}
    assert _labels(shown["Weight"]) == {"attention", "soft_target"}


def test_lines_carry_the_values_of_their_paths(tmp_path, shown):
    draw(_table(), tmp_path / "trajectory.png")
    bold = [line.get_ydata() for line in shown["Weight"].lines if line.get_linewidth() > 1]
    assert [set(values) for values in bold] == [{1.0}, {0.5}]
    assert len(bold[0]) < NUM_STEPS  # averaged: what a line shows is its course


def test_layers_with_weights_of_their_own_get_a_panel(tmp_path, shown):
    draw(_table(paths=("attention",), layers=("layer1.0", "layer2.0")), tmp_path / "trajectory.png")
    assert _labels(shown["Weight of each layer: attention"]) == {"layer1.0", "layer2.0"}
    assert _labels(shown["Weight"]) == {"attention"}


def test_layers_that_share_their_path_weight_do_not(tmp_path, shown):
    table = _table(paths=("attention",), layers=("layer1", "layer2"), layer_weights=(1.0, 1.0))
    draw(table, tmp_path / "trajectory.png")
    assert not [name for name in shown if "each layer" in name]


def test_student_alone_and_a_single_step_can_be_drawn(tmp_path, shown):
    draw(_table(num_steps=1, paths=()), tmp_path / "trajectory.png")
    assert list(shown) == ["Loss", "title"]
    assert _labels(shown["Loss"]) == {"task"}


def test_reads_the_parquet_file(tmp_path):
    pq.write_table(_table(), tmp_path / "trajectory.parquet")
    assert draw(tmp_path / "trajectory.parquet", tmp_path / "trajectory.png").stat().st_size > 1000


def test_loss_that_is_negative_or_not_finite_is_drawn(tmp_path, shown):
    table = _table()
    for name in ("attention/loss", "attention/weighted"):
        values = np.full(NUM_STEPS, -1.0)
        values[-3:] = np.nan
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    draw(table, tmp_path / "trajectory.png")
    assert shown["Loss"].get_yscale() == "linear"


def test_cosines_have_a_panel_where_gradients_were_looked_at(tmp_path, shown):
    table = _table()
    cosine = [0.5 if step % 50 == 0 else None for step in range(NUM_STEPS)]
    looked = table.append_column("attention/cosine", pa.array(cosine, pa.float64()))
    draw(looked, tmp_path / "trajectory.png")
    panel = shown["Cosine of the gradient with the task's"]
    assert _labels(panel) == {"attention"}
    line = panel.lines[0]
    assert line.get_xdata().tolist() == [0, 50, 100, 150]
    assert line.get_ydata().tolist() == [0.5] * 4


def test_empty_trajectory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold at least one step"):
        draw(_table(num_steps=0), tmp_path / "trajectory.png")


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([0.0, 100.0], [0.0, 100.0]),  # far apart: left alone
        ([50.0, 50.0], [45.0, 55.0]),  # in one place: half the gap each
        ([0.0, 4.0, 8.0], [-6.0, 4.0, 14.0]),
        ([0.0, 2.0, 100.0, 100.0], [-4.0, 6.0, 95.0, 105.0]),
    ],
)
def test_labels_move_apart_by_as_little_as_possible(wanted, places):
    np.testing.assert_allclose(_apart(np.array(wanted), 10.0, -20.0, 120.0), places)


@pytest.mark.parametrize(
    ("wanted", "places"),
    [
        ([-3.0, 50.0], [0.0, 50.0]),  # no lower than the panel
        ([50.0, 98.0, 98.0], [50.0, 90.0, 100.0]),  # no higher
        ([0.0, 0.0, 1.0, 60.0], [0.0, 10.0, 20.0, 60.0]),
        ([float(number) for number in range(12)], [10.0 * number for number in range(12)]),  # no room: upwards
    ],
)
def test_labels_stay_beside_their_panel(wanted, places):
    np.testing.assert_allclose(_apart(np.array(wanted), 10.0, 0.0, 100.0), places)


@pytest.mark.parametrize(("num_paths", "layers"), [(31, ()), (12, ("layer1", "layer2"))])
def test_has_room_for_many_paths(tmp_path, shown, num_paths, layers):
    table = _table(paths=[f"Path{number}" for number in range(num_paths)], layers=layers)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where a panel has no room left
        draw(table, tmp_path / "trajectory.png")
    for panel in ("Loss", "Weight", "Share of the total, percent"):
        places = sorted(text.get_window_extent().y0 for text in shown[panel].texts)
        assert len(places) == num_paths + (panel != "Weight")
        assert np.diff(places).min() > 12
        box = shown[panel].get_window_extent()
        assert box.y0 - 15 < places[0]
        assert places[-1] < box.y1
    assert len([title for title in shown if title.startswith("Weight of each layer")]) == (num_paths if layers else 0)
