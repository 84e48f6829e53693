"""Gathers the losses of an epoch without making the device wait."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from distill import distributed
from distill.aggregators.gradients import cosines
from distill.distiller import Distiller
from distill.step import Step
from distill.trajectory import Trajectory


class Recorder:
    """Gathers the losses of an epoch on the device, and brings them to the host once, at its end."""

    def __init__(self, distiller: Distiller, log_every: int) -> None:
        self._distiller = distiller
        self._log_every = log_every
        self._steps: list[int] = []
        self._progress: list[float] = []
        self._rows: list[Tensor] = []
        self._weighs_task = False
        self._looks: dict[int, Tensor] = {}  # by step: [path, 3]

    def add(self, step: int, progress: float, losses: Step) -> None:
        """Keep one step's losses, detached and on the device."""
        self._steps.append(step)
        self._progress.append(progress)
        self._weighs_task = losses.task_weight is not None
        task_weight = torch.ones_like(losses.task) if losses.task_weight is None else losses.task_weight
        scalars = torch.stack([losses.total, losses.task, task_weight.to(losses.task)])
        self._rows.append(torch.cat([scalars, losses.layers, losses.weights]))
        if losses.products is not None:
            self._looks[step] = losses.products

    def finish(self, trajectory: Trajectory, epoch: int) -> dict[str, float]:
        """Add every ``log_every``-th step, and those looked at, to the trajectory; return the epoch's means.

        They are means over steps and ranks.
        """
        rows = distributed.mean(torch.stack(self._rows).double()).cpu()  # [step, 3 + 2 * layer]
        num_layers = len(self._distiller.layer_keys)
        looks = {step: self._gradients(products) for step, products in self._looks.items()}
        for step, progress, row in zip(self._steps, self._progress, rows.tolist(), strict=True):
            if step % self._log_every == 0 or step in looks:
                losses, weights = row[3 : 3 + num_layers], row[3 + num_layers :]
                trajectory.append(
                    step=step,
                    epoch=epoch,
                    progress=progress,
                    total=row[0],
                    task=row[1],
                    losses=losses,
                    weights=weights,
                    task_weight=row[2] if self._weighs_task else None,
                    gradients=looks.get(step),
                )
        return self._means(rows) | _gradient_means(looks)

    def _gradients(self, products: Tensor) -> dict[str, tuple[float, float]]:
        """Return each path's cosine with the task and its length in units of the task's, by name."""
        task, path = products[:, 1].double().sqrt(), products[:, 2].double().sqrt()
        lengths = path / task.clamp_min(torch.finfo(torch.float64).tiny)
        pairs = zip(cosines(products).tolist(), lengths.tolist(), strict=True)
        return dict(zip(self._distiller.layers, pairs, strict=True))

    def _means(self, rows: Tensor) -> dict[str, float]:
        keys = self._distiller.layer_keys
        losses, weights = rows[:, 3 : 3 + len(keys)], rows[:, 3 + len(keys) :]
        weighted = losses * weights
        denominator = (rows[:, 1] * rows[:, 2]).mean() + weighted.sum(1).mean()
        report = {"train/loss/total": float(rows[:, 0].mean()), "train/loss/task": float(rows[:, 1].mean())}
        if self._weighs_task:
            report["train/task_weight"] = float(rows[:, 2].mean())
        layer_wise = self._distiller.aggregator.granularity == "layer"
        position = 0
        for path, layers in self._distiller.layers.items():
            columns = slice(position, position + len(layers))
            report[f"train/loss/{path}"] = float(losses[:, columns].sum(1).mean())
            report[f"train/weight/{path}"] = float(weights[:, columns].mean())
            report[f"train/share/{path}"] = float(weighted[:, columns].sum(1).mean() / denominator)
            for offset, layer in enumerate(layers if layer_wise and len(layers) > 1 else ()):
                report[f"train/loss/{path}.{layer}"] = float(losses[:, position + offset].mean())
                report[f"train/weight/{path}.{layer}"] = float(weights[:, position + offset].mean())
            position += len(layers)
        return report


def _gradient_means(looks: Mapping[int, Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """Return the epoch's mean cosines and lengths, under the names of metrics."""
    report: dict[str, float] = {}
    for path in next(iter(looks.values()), {}):
        cosine, length = zip(*(look[path] for look in looks.values()), strict=True)
        report |= {
            f"train/cosine/{path}": sum(cosine) / len(cosine),
            f"train/gradient/{path}": sum(length) / len(length),
        }
    return report
