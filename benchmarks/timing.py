"""Interleaved timing: variants take turns, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

Seconds = dict[str, list[float]]
"""Seconds of each round, by variant."""


@dataclass(frozen=True)
class Ratio:
    """How one time compares with another: ratios of neighbours, round by round.

    Attributes:
        median: of the rounds' ratios.
        sd: standard deviation of the rounds' ratios.
        n: number of rounds.
    """

    median: float
    sd: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:6.2f}  (n={self.n}, sd {self.sd:.2f})"


def interleave(
    variants: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> Seconds:
    """Run every variant once a round, in turns, and return how long each run took on ``device``.

    Every other round goes backwards, so that no variant always follows the same neighbour.

    Args:
        variants: what to run, by name.
        rounds: how many runs of each count.
        warmup: how many runs of each come first and do not count.
        device: is waited for at both ends of a run.
        clock: gives seconds; ``time.process_time``, on one thread, does not count what other processes use.
    """
    for run in variants.values():
        for _ in range(warmup):
            run()
    seconds: Seconds = {name: [] for name in variants}
    for number in range(rounds):
        order = list(variants.items())
        for name, run in order if number % 2 == 0 else reversed(order):
            _wait(device)
            started = clock()
            run()
            _wait(device)
            seconds[name].append(clock() - started)
    return seconds


def compare(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Return the ratio of two variants' times, compared within each round."""
    ratios = [first / second for first, second in zip(above, below, strict=True)]
    return Ratio(statistics.median(ratios), statistics.stdev(ratios) if len(ratios) > 1 else 0.0, len(ratios))


def total(*parts: Sequence[float]) -> list[float]:
    """Return the sum of several variants' times, round by round."""
    return [sum(together) for together in zip(*parts, strict=True)]


def machine(device: torch.device) -> dict[str, Any]:
    """Say what a measurement ran on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "device": name,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": load,
        "torch": torch.__version__,
    }


def save(path: Path, setting: Mapping[str, Any], seconds: Seconds, ratios: Mapping[str, Ratio]) -> None:
    """Write a measurement as JSON: setting, machine, every round's seconds, and the ratios."""
    content = {
        "setting": dict(setting),
        "seconds": seconds,
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
