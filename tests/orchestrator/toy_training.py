"""Training functions without training, for tests of the engines: importable by name on every Ray worker."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distill.host import Host

TrainingFunction = Callable[[dict[str, Any], Host], dict[str, Any]]


def climb(payload: dict[str, Any], host: Host) -> dict[str, Any]:
    """Report ``level * epoch`` after each epoch, look whether to stop, and leave notes of what happened."""
    notes = Path(payload["notes"])
    note(notes, payload, {"pid": os.getpid(), "world": host.world_size, "rank": host.rank, "cwd": str(Path.cwd())})
    begun = payload.get("begun", 0)
    for epoch in range(begun + 1, payload["epochs"] + 1):
        time.sleep(payload.get("seconds", 0.0))
        host.report({"epoch": epoch, "val/accuracy": payload["level"] * epoch, "pid": os.getpid()})
        if host.should_stop():
            return {"status": "stopped", "epochs": epoch}
    return {"status": "finished", "epochs": payload["epochs"], "rank": host.rank}


def stumble(payload: dict[str, Any], host: Host) -> dict[str, Any]:
    """Go wrong in the way that the payload asks for."""
    wrong = payload.get("wrong")
    if wrong == "error":
        raise RuntimeError("the disk is full\nand more about it")
    if wrong == "configuration":
        raise ValueError("lr: must be above 0")
    if wrong == "nan":
        payload = payload | {"level": float("nan")}
    if wrong == "death":
        notes = Path(payload["notes"])
        attempts = len(list(notes.glob(f"{payload['key']}-*.json")))
        if attempts < payload["deaths"]:
            note(notes, payload, {"epoch": 1})
            host.report({"epoch": 1, "val/accuracy": 1.0})
            os._exit(1)
    return climb(payload, host)


def two_of_a_kind(payload: dict[str, Any], host: Host) -> dict[str, Any]:
    """Add up the ranks and share a gradient, so that it shows whether the workers are connected; then climb."""
    import torch
    import torch.distributed as dist
    from torch import nn

    notes = Path(payload["notes"])
    if host.rank == 1:
        die_at_first(notes, payload.get("deaths", 0))
    total = torch.tensor([float(host.rank + 1)])
    dist.all_reduce(total)
    model = host.prepare(nn.Linear(2, 1, bias=False), find_unused_parameters=False)
    model(torch.full((1, 2), float(host.rank + 1))).sum().backward()
    gradient = next(model.parameters()).grad
    assert gradient is not None
    if payload.get("deaf"):
        for epoch in range(1, payload["epochs"] + 1):
            time.sleep(payload["seconds"])
            host.report({"epoch": epoch, "val/accuracy": payload["level"] * epoch})
    result = climb(payload, host)
    found = {"total": total.item(), "gradient": gradient.tolist(), "threads": torch.get_num_threads()}
    return result | found | {"wrapped": type(model).__name__, "backend": dist.get_backend()}


class DeadlyToReceive:
    """A training function whose arrival kills rank 1, before anything of it was called; as often as it is told to."""

    def __init__(self, training_function: TrainingFunction, *, notes: str, deaths: int) -> None:
        self._arguments = (training_function, notes, deaths)

    def __call__(self, payload: dict[str, Any], host: Host) -> dict[str, Any]:
        return self._arguments[0](payload, host)

    def __reduce__(self) -> tuple[Any, ...]:
        return _receive, self._arguments


def _receive(training_function: TrainingFunction, notes: str, deaths: int) -> DeadlyToReceive:
    import torch.distributed as dist

    if dist.is_initialized() and dist.get_rank() == 1:
        die_at_first(Path(notes), deaths)
    return DeadlyToReceive(training_function, notes=notes, deaths=deaths)


def die_at_first(notes: Path, deaths: int) -> None:
    """Kill this process, unless that has happened ``deaths`` times."""
    if len(list(notes.glob("death-*.json"))) < deaths:
        note(notes, {"key": "death"}, {})
        os._exit(1)


def note(notes: Path, payload: dict[str, Any], content: dict[str, Any]) -> None:
    (notes / f"{payload['key']}-{time.time_ns()}.json").write_text(json.dumps(content))
