"""Frees the workers that Ray Train forgets when one of them dies while their group starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

if TYPE_CHECKING:
    from ray.train.v2._internal.execution.worker_group import WorkerGroup


class LeftoverWorkers(ControllerCallback, WorkerGroupCallback):
    """Shuts down, at the end of Train's controller, a worker group that nobody else will.

    Ray 2.60 makes a group known to its controller only once the training function was launched on every worker, but
    starts it before. Where a worker dies in between, the controller ends without the group, and its cleaner has been
    told that all is well: the placement group keeps its CPUs and GPUs as long as the job lives, and the same run, tried
    again, waits for them for ever. Train takes callbacks of this internal kind beside the public one.
    """

    def __init__(self) -> None:
        self._group: WorkerGroup | None = None

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        self._group = worker_group

    async def before_controller_shutdown(self) -> None:
        # Train has shut down the groups that it knows of by now, and such a group says so.
        if self._group is not None and self._group.has_started():
            self._group.shutdown()  # type: ignore[no-untyped-call]
