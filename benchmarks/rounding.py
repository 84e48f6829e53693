"""By how much a teacher's answers change with the batch that they are asked in: what exact storing has to fix.

    python -m benchmarks.rounding --json rounding.json

Largest difference of each path's target, relative to the target's largest value, against the answers of the same images
in batches of the training's size; and what one number of float16 rounds away. Ten seconds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import timing
from benchmarks.variants import PATHS, connected
from benchmarks.workbench import Workbench
from distill.paths import Target

BATCHES = (64, 17, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounding", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    bench = Workbench(device=torch.device(options.device))
    rows = measure(bench)
    print(f"{'':14}" + "".join(f"{column:>18}" for column in next(iter(rows.values()))))
    for name, row in rows.items():
        print(f"{name:14}" + "".join(f"{value:18.1e}" for value in row.values()))
    if options.json:
        content: dict[str, Any] = {"machine": timing.machine(bench.device), "batch": bench.batch, "relative": rows}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def measure(bench: Workbench) -> dict[str, dict[str, float]]:
    """Return the largest relative differences, by path and by what was changed."""
    distiller, teacher = connected(bench, tuple(PATHS))
    images = next(bench.batches(channels_last=bench.channels_last)).images

    def answers(size: int) -> list[dict[str, Target]]:
        return [distiller.targets(teacher(part)) for part in images.split(size)]

    whole = answers(len(images))
    changed: dict[str, list[dict[str, Target]]] = {f"batches of {size}": answers(size) for size in BATCHES}
    rows: dict[str, dict[str, float]] = {}
    for name in PATHS:
        rows[name] = {
            label: _difference(_joined(parts, name), _joined(whole, name)) for label, parts in changed.items()
        }
        rounded = {layer: value.half().float() for layer, value in _joined(whole, name).items()}
        rows[name]["float16"] = _difference(rounded, _joined(whole, name))
    return rows


def _joined(parts: Sequence[dict[str, Target]], name: str) -> Target:
    return {layer: torch.cat([part[name][layer] for part in parts]) for layer in parts[0][name]}


def _difference(found: Target, wanted: Target) -> float:
    return max(float((found[layer] - wanted[layer]).abs().max() / wanted[layer].abs().max()) for layer in wanted)


if __name__ == "__main__":
    main()
