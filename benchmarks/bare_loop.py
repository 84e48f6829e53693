"""The training of benchmarks.orchestration as a loop of one's own around ``distill``; under torchrun with DDP."""

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
    """This process as torchrun started it."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))


def main() -> None:
    """Train as the experiment file says and write the seconds of each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--file", "--storage", "--result"):
        parser.add_argument(name, type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    host = _Rank()
    if host.world_size > 1:
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
        evaluate(distiller.student, loaders.validation, distiller.task, num_classes=prepared.data.num_classes)
        seconds.append(time.perf_counter() - started)
    if host.rank == 0:
        options.result.write_text(json.dumps({"epochs": seconds}))
    if host.world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
