"""What a run asks of a cluster, and how often that fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.node_group import NodeGroup


@dataclass(frozen=True)
class Demand:
    """The resources of one run.

    Attributes:
        workers: processes that train together.
        cpus_per_worker: CPUs of each.
        gpus_per_worker: GPUs of each; below 1: that share of one GPU.
    """

    workers: int = 1
    cpus_per_worker: int = 1
    gpus_per_worker: float = 0

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ValueError(f"run.workers: must be at least 1, found {self.workers}")
        if self.cpus_per_worker < 1:
            raise ValueError(f"run.cpus_per_worker: must be at least 1, found {self.cpus_per_worker}")
        if self.gpus_per_worker < 0 or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            raise ValueError(
                "run.gpus_per_worker: must be 0, a share of one GPU between 0 and 1, or a whole number of GPUs, "
                f"found {self.gpus_per_worker}"
            )

    def resources_per_worker(self) -> dict[str, float]:
        """Return what Ray is asked for, worker by worker."""
        gpus = {"GPU": self.gpus_per_worker} if self.gpus_per_worker else {}
        return {"CPU": self.cpus_per_worker, **gpus}

    def most_at_once(self, groups: Sequence[NodeGroup]) -> int:
        """Return how many runs of this kind ``groups`` can hold; workers of one run may lie on several nodes."""
        return sum(self._workers_on(group.resources) * group.count for group in groups) // self.workers

    def check_fits(self, groups: Sequence[NodeGroup]) -> None:
        """Refuse what can never run.

        Raises:
            ValueError: not even one run fits.
        """
        if self.most_at_once(groups):
            return
        places = sum(self._workers_on(group.resources) * group.count for group in groups)
        nodes = "; ".join(group.describe() for group in groups) or "no nodes"
        raise ValueError(
            f"run: a run needs {self.describe()}, but the cluster has at most {places} such "
            f"{'place' if places == 1 else 'places'} ({nodes}); lower run.workers, run.cpus_per_worker or "
            "run.gpus_per_worker, or use a larger cluster"
        )

    def describe(self) -> str:
        """Return this demand in words."""
        cpus = f"{self.cpus_per_worker} {'CPU' if self.cpus_per_worker == 1 else 'CPUs'}"
        each = f"{cpus} and {self.gpus_per_worker:g} GPU" if self.gpus_per_worker else cpus
        return f"{self.workers} workers of {each} each" if self.workers > 1 else f"a worker of {each}"

    def _workers_on(self, resources: Mapping[str, float]) -> int:
        by_cpu = int(resources.get("CPU", 0) // self.cpus_per_worker)
        if not self.gpus_per_worker:
            return by_cpu
        gpus = int(resources.get("GPU", 0))
        # A share can't lie across two GPUs: three workers of 0.3 fit on one, not three and a third. The small term
        # keeps 1 / 0.1 from being 9.
        per_gpu = int(1 / self.gpus_per_worker + 1e-9)
        by_gpu = gpus * per_gpu if self.gpus_per_worker < 1 else int(gpus // self.gpus_per_worker)
        return min(by_cpu, by_gpu)
