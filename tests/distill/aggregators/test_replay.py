from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from aggregator_cases import connected, losses_of
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from distill.aggregators import Aggregator, Losses, Replay
from distill.trajectory import Trajectory

ONE_LAYER_EACH = {"a": ("only",), "b": ("only",)}


def write(
    folder: Path | str,
    rows: Sequence[tuple[float, Sequence[float]]],
    layers: Mapping[str, Sequence[str]] = ONE_LAYER_EACH,
) -> str:
    """Write the trajectory of a run: progress and the weights of all layers, whose losses are 1, 2, ..."""
    trajectory = Trajectory(layers)
    for step, (progress, weights) in enumerate(rows):
        losses = [float(number) for number in range(1, len(weights) + 1)]
        trajectory.append(
            step=step, epoch=1, progress=progress, total=1.0, task=1.0, losses=losses, weights=list(weights)
        )
    file = Path(folder) / "trajectory.parquet"
    trajectory.write(file)
    return str(file)


def at(aggregator: Aggregator, progress: float | Tensor) -> list[float]:
    """Return the weights at this share of the training."""
    losses = losses_of(*range(1, len(aggregator.keys) + 1))
    weights: list[float] = aggregator.combine(replace(losses, progress=progress)).weights.tolist()
    return weights


def golden_between_rows(make: Callable[..., Aggregator]) -> None:
    # Rows at 1/4: (1, 8), 1/2: (3, 4), 1: (3, 0).  At 3/8, half way: (2, 6); at 7/8, three quarters: (3, 1).
    # Outside the first and the last row.  L = (3, 5) at 3/8: total 1 + 2 * 3 + 6 * 5.
    with tempfile.TemporaryDirectory() as folder:
        aggregator = connected(make(write(folder, [(0.25, (1, 8)), (0.5, (3, 4)), (1.0, (3, 0))])), 2)
    for progress, weights in ((0.0, [1, 8]), (0.25, [1, 8]), (0.375, [2, 6]), (0.5, [3, 4]), (0.875, [3, 1])):
        assert at(aggregator, progress) == weights
    assert at(aggregator, 1.0) == [3, 0]
    losses = replace(losses_of(3.0, 5.0), progress=0.375)
    aggregate = aggregator(losses)
    aggregate.total.backward()
    assert aggregate.total.item() == 37
    assert losses.paths.grad.tolist() == [2, 6]


def golden_layers(make: Callable[..., Aggregator]) -> None:
    # A path of one layer has no column of its layer's; that of the path of two is their mean by loss,
    # (1 * 4 + 2 * 1) / 3 = 2.
    layers = {"attention": ("layer1", "layer2"), "soft_target": ("logits",)}
    with tempfile.TemporaryDirectory() as folder:
        file = write(folder, [(0.0, (4, 1, 7))], layers)
        by_layer, by_path = make(file, granularity="layer"), make(file)
    for aggregator, weights in ((by_layer, [4, 1, 7]), (by_path, [2, 7])):
        aggregator.connect(layers)
        assert at(aggregator, 0.5) == weights


GOLDENS = {"Replay": (golden_between_rows, golden_layers)}


def test_equals_numpy_interpolation(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    progress = np.sort(generator.random(20))
    weights = generator.normal(size=(20, 2)) * 10.0 ** generator.integers(-6, 6, size=(20, 1))
    file = write(tmp_path, list(zip(progress.tolist(), weights.tolist(), strict=True)))
    aggregator = connected(Replay(file), 2).double()
    for done in np.concatenate([generator.random(50), [0.0, 1.0]]):
        wanted = [np.interp(done, progress, weights[:, key]) for key in range(2)]
        assert at(aggregator, done) == pytest.approx(wanted, rel=1e-4, abs=1e-6 * np.abs(weights).max())


def test_every_recorded_step_is_met_exactly(tmp_path: Path) -> None:
    rows = [(step / 300, (1 / (1 + step), 1e4 - step)) for step in range(0, 300, 7)]
    aggregator = connected(Replay(write(tmp_path, rows)), 2)
    for progress, weights in rows:
        losses = replace(losses_of(1.0, 1.0, dtype=torch.float32), progress=torch.tensor(progress))
        assert torch.equal(aggregator(losses).weights, torch.tensor(weights))


def test_steps_closer_than_float32_can_tell(tmp_path: Path) -> None:
    aggregator = connected(Replay(write(tmp_path, [(0.5, (1, 1)), (0.5 + 1e-12, (3, 3)), (1.0, (5, 5))])), 2)
    assert at(aggregator, 0.5) == [3, 3]
    assert at(aggregator, 0.75) == [4, 4]


def test_content_is_in_the_checkpoint_and_counts(tmp_path: Path) -> None:
    saved = connected(Replay(write(tmp_path, [(0.0, (1, 2))])), 2)
    restored = connected(Replay(write(tmp_path, [(0.0, (5, 5))])), 2)
    restored.load_state_dict(saved.state_dict())
    assert at(restored, 0.0) == [1, 2]
    longer = connected(Replay(write(tmp_path, [(0.0, (5, 5)), (0.5, (6, 6))])), 2)
    with pytest.raises(RuntimeError, match="size mismatch for _weights"):
        longer.load_state_dict(saved.state_dict())


def test_file_is_read_once(tmp_path: Path) -> None:
    file = write(tmp_path, [(0.0, (1, 2))])
    aggregator = Replay(file)
    Path(file).unlink()
    assert at(connected(aggregator, 2), 0.0) == [1, 2]


def test_losses_do_not_count(tmp_path: Path) -> None:
    aggregator = connected(Replay(write(tmp_path, [(0.0, (1, 2))])), 2)
    for values in ((0.0, 0.0), (1e10, -1e10), (1e-10, 1e30)):
        assert aggregator(losses_of(*values)).weights.tolist() == [1, 2]


def test_progress_is_data_in_one_graph(tmp_path: Path) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    aggregator = connected(Replay(write(tmp_path, [(0.0, (1, 2)), (1.0, (3, 2))])), 2)
    compiled = torch.compile(aggregator, backend=counter, fullgraph=True)
    for progress in (0.0, 0.5, 1.0):
        losses = replace(losses_of(3.0, 5.0), progress=torch.tensor(progress))
        assert torch.equal(compiled(losses).weights, aggregator(losses).weights)
    assert counter.frame_count == 1


def test_paths_that_are_not_replayed_are_ignored(tmp_path: Path) -> None:
    file = write(tmp_path, [(0.0, (1, 2, 3))], {"a": ("only",), "other": ("only",), "b": ("only",)})
    assert at(connected(Replay(file), 2), 0.0) == [1, 3]


def test_without_paths_the_task_is_all(tmp_path: Path) -> None:
    aggregator = connected(Replay(write(tmp_path, [(0.0, ())], {})), 0)
    task = torch.tensor(2.5)
    assert aggregator(Losses(task, torch.zeros(0), (), 0.0)).total.item() == 2.5


def test_a_missing_path_is_named_with_its_neighbour(tmp_path: Path) -> None:
    file = write(tmp_path, [(0.0, (1, 2))], {"attention": ("only",), "soft_target": ("only",)})
    aggregator = Replay(file)
    rule = (
        "file must hold the weight of every path; .* has none of: atention, fsp; "
        r"it has those of: attention, soft_target\. Did you mean 'attention'\?$"
    )
    with pytest.raises(ValueError, match=rule):
        aggregator.connect({"atention": ("only",), "soft_target": ("only",), "fsp": ("only",)})


@pytest.mark.parametrize(
    "layers",
    [
        {"attention": ("layer1", "layer3"), "soft_target": ("logits",)},  # another layer
        {"attention": ("layer1",), "soft_target": ("logits", "embedding")},  # two, where the record has the path alone
    ],
)
def test_layers_must_be_recorded(layers: Mapping[str, Sequence[str]], tmp_path: Path) -> None:
    file = write(tmp_path, [(0.0, (1, 2, 3))], {"attention": ("layer1", "layer2"), "soft_target": ("logits",)})
    with pytest.raises(ValueError, match="file must hold the weight of every layer"):
        Replay(file, granularity="layer").connect(layers)


def test_groups_have_no_record(tmp_path: Path) -> None:
    file = write(tmp_path, [(0.0, (1, 2))])
    with pytest.raises(ValueError, match="granularity of Replay must be 'path' or 'layer'"):
        Replay(file, granularity={"both": ["a", "b"]})


def table(**columns: Any) -> pa.Table:
    return pa.table({name.replace("__", "/"): values for name, values in columns.items()})


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (table(a__weight=[1.0]), "has no column 'progress'"),
        (table(progress=[0.0], a__weight=[float("nan")]), "must hold finite numbers alone; .* others in a/weight"),
        (table(progress=[0.0, 0.5], a__weight=[1.0, None]), "others in a/weight"),
        (table(progress=[0.0], a__weight=[1e300]), "others in a/weight"),
        (table(progress=[0.0, float("inf")], a__weight=[1.0, 1.0]), "others in progress"),
        (table(progress=["x"], a__weight=[1.0]), "cannot read"),
        (table(progress=pa.array([], pa.float64())), "at least one step, found none"),
        (table(progress=[0.0, 0.5, 0.5], a__weight=[1.0, 2.0, 3.0]), "it falls or stands still"),
        (table(progress=[0.5, 0.0], a__weight=[1.0, 2.0]), "it falls or stands still"),
    ],
)
def test_what_is_no_record_is_refused_at_construction(content: pa.Table, rule: str, tmp_path: Path) -> None:
    file = tmp_path / "record.parquet"
    pq.write_table(content, file)
    with pytest.raises(ValueError, match=rule):
        Replay(str(file))


@pytest.mark.parametrize("content", [None, b"", b"PAR1 is no more than a beginning"])
def test_what_is_no_file_is_refused_at_construction(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "record.parquet"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*record\.parquet"):
        Replay(str(file))


def test_a_folder_is_refused_at_construction(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        Replay(str(tmp_path))


def test_a_damaged_file_is_refused_at_construction(tmp_path: Path) -> None:
    file = Path(write(tmp_path, [(step / 1000, (float(step), 2.0)) for step in range(1000)]))
    content = bytearray(file.read_bytes())
    for place in range(100, len(content) // 2, 50):
        content[place] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(ValueError, match="cannot read"):
        Replay(str(file))


MUTANTS = {
    "Replay": [
        ("self._progress <= done", "self._progress >= done"),
        ("[passed - 1, passed]", "[passed, passed + 1]"),
        ("torch.lerp(first, second, share)", "torch.lerp(second, first, share)"),
        ("torch.lerp(first, second, share)", "first"),
        ("/ gap.masked_fill(gap == 0, 1)", ""),
        ("removesuffix(_ENDING): column.float()", "removesuffix(_ENDING): column.float().abs().sqrt()"),
        ('_ENDING = "/weight"', '_ENDING = "/loss"'),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
