import pytest

from distill.trajectory import Trajectory


def append(trajectory: Trajectory, step: int) -> None:
    trajectory.append(
        step=step, epoch=1, progress=0.5, total=9.0, task=1.0, losses=[2.0, 1.0, 3.0], weights=[0.5, 0.25, 2.0]
    )


def test_row_holds_every_path_and_layer():
    trajectory = Trajectory({"attention": ("layer1", "layer2"), "soft_target": ("logits",)})
    append(trajectory, 3)
    row = trajectory.table().to_pylist()[0]
    # By hand: attention = 2 + 1, weighted 2 * .5 + 1 * .25 = 1.25, weight 1.25 / 3.
    assert row == pytest.approx(
        {
            "step": 3,
            "epoch": 1,
            "progress": 0.5,
            "total/loss": 9.0,
            "task/loss": 1.0,
            "attention/loss": 3.0,
            "attention/weight": 1.25 / 3,
            "attention/weighted": 1.25,
            "attention.layer1/loss": 2.0,
            "attention.layer1/weight": 0.5,
            "attention.layer1/weighted": 1.0,
            "attention.layer2/loss": 1.0,
            "attention.layer2/weight": 0.25,
            "attention.layer2/weighted": 0.25,
            "soft_target/loss": 3.0,
            "soft_target/weight": 2.0,
            "soft_target/weighted": 6.0,
        }
    )


def test_a_loss_of_zero_has_the_mean_weight():
    trajectory = Trajectory({"a": ("x", "y")})
    trajectory.append(step=0, epoch=1, progress=0.0, total=0.0, task=0.0, losses=[0.0, 0.0], weights=[1.0, 3.0])
    assert trajectory.last["a/weight"] == 2.0


def test_parquet_round_trip_and_continuation(tmp_path):
    layers = {"attention": ("layer1", "layer2"), "soft_target": ("logits",)}
    first = Trajectory(layers)
    append(first, 0)
    first.write(tmp_path / "trajectory.parquet")
    second = Trajectory(layers)
    second.restore(tmp_path / "trajectory.parquet")
    append(first, 1)
    append(second, 1)
    assert second.table().equals(first.table())


def test_rows_of_other_paths_are_refused(tmp_path):
    first = Trajectory({"attention": ("layer1", "layer2"), "soft_target": ("logits",)})
    append(first, 0)
    first.write(tmp_path / "trajectory.parquet")
    with pytest.raises(ValueError, match="other paths than hint"):
        Trajectory({"hint": ("layer2",)}).restore(tmp_path / "trajectory.parquet")
