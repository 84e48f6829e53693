"""The training of benchmarks.orchestration as a loop of one's own around ``distill``.

In this process, under torchrun with DDP, or with ``--ray-workers`` in a plain ``TorchTrainer`` of Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from distill.evaluate import evaluate
from distill.host import LocalHost
from orchestrator.config import Design, load
from orchestrator.job import Job
from orchestrator.preparation import prepare
from orchestrator.storage import Storage
from orchestrator.teaching import teacher_directory


class _Rank(LocalHost):
    """This process, by default as torchrun started it."""

    def __init__(self, rank: int | None = None, world_size: int | None = None) -> None:
        super().__init__(torch.device("cpu"))
        self.rank = int(os.environ.get("RANK", "0")) if rank is None else rank
        self.world_size = int(os.environ.get("WORLD_SIZE", "1")) if world_size is None else world_size


def main() -> None:
    """Train as the experiment file says."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--file", "--storage", "--result"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--ray-workers", type=int, default=0)
    options = parser.parse_args()
    if options.ray_workers:
        _under_ray(options)
    else:
        train(options, _Rank())


def _under_ray(options: argparse.Namespace) -> None:
    """Train in Ray Train's workers, as its users write it."""
    import ray
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    def loop(config: dict[str, argparse.Namespace]) -> None:
        from benchmarks import bare_loop  # the module by its name: the one that runs is __main__, and sent by value

        context = ray.train.get_context()
        rank = bare_loop._Rank(context.get_world_rank(), context.get_world_size())
        bare_loop.train(config["options"], rank)

    here = {"env_vars": {"PYTHONPATH": str(Path.cwd())}}
    ray.init("local", include_dashboard=True, log_to_driver=False, runtime_env=here)
    scaling = ScalingConfig(num_workers=options.ray_workers)
    TorchTrainer(loop, train_loop_config={"options": options}, scaling_config=scaling).fit()
    ray.shutdown()


def train(options: argparse.Namespace, host: _Rank) -> None:
    """Train, and write the seconds of each epoch."""
    torch.set_num_threads(1)
    if host.world_size > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    experiment = load(options.file, [f"run.storage={options.storage}"])
    [planned] = Design(experiment).planned()
    teacher = teacher_directory(planned.config, Storage(str(options.storage)))
    prepared = prepare(Job(planned.config, "", "", teacher=teacher), host)
    distiller, loaders = prepared.distiller, prepared.loaders
    module = distiller if host.world_size == 1 else DistributedDataParallel(distiller)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.05, momentum=0.9)
    assert prepared.teacher is not None
    assert loaders.validation is not None
    seconds = []
    for epoch in range(planned.config["train"]["epochs"]):
        started = time.perf_counter()
        module.train()
        for batch in loaders.train.epoch(epoch):
            loss = module(batch, distiller.targets(prepared.teacher(batch.images))).total
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            distiller.aggregator.after_step()
        evaluate(distiller.student, loaders.validation, distiller.task, classes=prepared.data.classes)
        seconds.append(time.perf_counter() - started)
    if host.rank == 0:
        options.result.write_text(json.dumps({"epochs": seconds}))
    if host.world_size > 1 and not options.ray_workers:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
