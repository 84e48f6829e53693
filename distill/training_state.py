"""How far a training is, and how a checkpoint keeps that."""

from __future__ import annotations

from typing import Any

import torch

from distill import distributed
from distill.checkpoint import Checkpoint, Checkpoints
from distill.distiller import Distiller
from distill.random_state import random_state, set_random_state
from distill.trajectory import Trajectory


class TrainingState:
    """All that a training has to know to go on as if it had never stopped.

    Args:
        distiller: holds the student, the paths and the aggregator.
        optimizer: trains them.
        scheduler: moves its learning rate; ``None`` where that stays.
        trajectory: losses and weights so far.
        rank: this process's number.
        world_size: number of processes.

    Attributes:
        epoch: finished epochs.
        step: optimiser steps made.
        seconds: spent on them, evaluation included.
        validation: the metrics of the last evaluation.
    """

    def __init__(
        self,
        distiller: Distiller,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None,
        trajectory: Trajectory,
        *,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._distiller = distiller
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._trajectory = trajectory
        self._rank = rank
        self._world_size = world_size
        self.epoch = 0
        self.step = 0
        self.seconds = 0.0
        self.validation: dict[str, float] | None = None

    def save(self, checkpoints: Checkpoints | None, config_hash: str) -> None:
        """Write a checkpoint on rank 0; every rank takes part, because each has random states of its own."""
        random_states = distributed.gather_objects(random_state())
        if checkpoints is None or self._rank != 0:
            return
        checkpoints.save(
            {"state.pt": self._plain(random_states), "trajectory.parquet": self._trajectory.write},
            epoch=self.epoch,
            step=self.step,
            config_hash=config_hash,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Become what the checkpoint holds; with another number of ranks random states stay as they are."""
        state = checkpoint.load("state.pt")
        self._distiller.load_state_dict(state["distiller"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.seconds, self.validation = state["seconds"], state["validation"]
        self._trajectory.restore(checkpoint.path("trajectory.parquet"))
        if len(state["random"]) == self._world_size:
            set_random_state(state["random"][self._rank])

    def _plain(self, random_states: list[Any]) -> dict[str, Any]:
        return {
            "distiller": self._distiller.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": None if self._scheduler is None else self._scheduler.state_dict(),
            "precision": self._distiller.precision,
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "validation": self.validation,
            "random": random_states,
        }
