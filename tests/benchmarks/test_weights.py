import json

from benchmarks import weights
from distill.trajectory import Trajectory


def test_late_weights_are_means_over_the_second_half_of_every_run(tmp_path, capsys):
    lines = []
    for seed, last in enumerate((4.0, 8.0)):
        trajectory = Trajectory({"a": ("x",)})
        for step, weight in enumerate((100.0, 100.0, 2.0, last)):
            trajectory.append(
                step=step,
                epoch=1,
                progress=step / 4,
                total=1.0,
                task=1.0,
                losses=[1.0],
                weights=[weight],
                task_weight=0.5,
            )
        (tmp_path / "runs" / f"k{seed}").mkdir(parents=True)
        trajectory.write(tmp_path / "runs" / f"k{seed}" / "trajectory.parquet")
        lines.append({"key": f"k{seed}", "arm": "mine/a", "paths": ["a"], "result": {"status": "finished"}})
    lines.append({"key": "gone", "arm": "mine/a", "paths": ["a"], "result": {"status": "failed"}})
    (tmp_path / "runs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    weights.main([str(tmp_path)])
    # (2 + 4) / 2 and (2 + 8) / 2: 3 and 5.
    assert capsys.readouterr().out == "mine/a (n = 2): a 4 +- 1.4, task 0.5 +- 0\n"
