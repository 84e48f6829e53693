"""What the saved measurements say, as the README quotes it.

    python -m benchmarks.summary

Reads ``benchmarks/results/*.json``; a test compares the README with what this prints.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks import orchestration, scale, timing

RESULTS = Path(__file__).parent / "results"

TRIALS, GPUS, TRIAL_HOURS, POINTS = 100_000, 1_000, 1.0, 2_000
"""The sweep on paper: trials, GPUs, hours a trial on one GPU, and metric values that a trial logs."""


def main() -> None:
    """Print the summary."""
    print("\n".join(summary()))


def summary() -> list[str]:
    """Return the lines that the README quotes, of the measurements that were saved."""
    makers = {
        "step": _step,
        "loading": _loading,
        "rounding": _rounding,
        "sweep": _sweep,
        "orchestration": _orchestration,
        "tracking": _tracking,
        "scale": _scale,
    }
    parts = [make() for name, make in makers.items() if (RESULTS / f"{name}.json").exists()]
    return [line for number, part in enumerate(parts) for line in (part if number == 0 else ["", *part])]


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return content


def _ratio(ratios: dict[str, dict[str, float]], name: str) -> str:
    return f"{ratios[name]['median']:.2f} +- {ratios[name]['sd']:.2f}"


def _step() -> list[str]:
    ratios = _read("step")["ratios"]
    labels = [name.removeprefix("stored: ").removesuffix(" / plain") for name in ratios if name.startswith("stored: ")]
    lines = [f"{'paths':12}{'stored / plain step':>22}{'live / (teacher + stored)':>28}"]
    for label in labels:
        stored, live = (
            _ratio(ratios, f"stored: {label} / plain"),
            _ratio(ratios, f"live: {label} / (teacher forward + stored)"),
        )
        lines.append(f"{label:12}{stored:>22}{live:>28}")
    for label in ("ST+AT", "four"):
        row = [_ratio(ratios, f"torchdistill: {label} / {ours}") for ours in ("stored", "live")]
        lines.append(f"torchdistill 1.1.5 on {label}: {row[0]} of our stored step, {row[1]} of our live one")
    n = int(ratios["stored: ST / plain"]["n"])
    lines.append(f"(n = {n}; a plain step in torch's own layout costs {_ratio(ratios, PLAIN)} of one in ours)")
    return lines


PLAIN = "plain, torch's layout / plain"


def _loading() -> list[str]:
    ratios = _read("loading")["ratios"]
    shares = [
        f"{ratios[f'{case}: waiting / fed']['median']:.1%} ({case})" for case in ("memory, 32x32", "files, 224x224")
    ]
    return [f"a step waits for its batch: {', '.join(shares)}; n = {int(ratios['memory, 32x32: waiting / fed']['n'])}"]


def _rounding() -> list[str]:
    rows = _read("rounding")["relative"].values()
    asked = max(value for row in rows for name, value in row.items() if name.startswith("batches"))
    half = max(row["float16"] for row in rows)
    return [
        f"targets asked in batches of another size differ by {asked:.0e} of the largest value, float16 by {half:.0e}"
    ]


def _sweep() -> list[str]:
    rounds = _read("sweep")["rounds"]
    lines = [f"{'12 trials, 2 at a time':24}{'images asked':>14}{'trials an hour':>17}{'speed of plain runs':>22}"]
    for name in rounds[0]["seconds"]:
        seconds = [each["seconds"][name] for each in rounds]
        ratio = timing.compare([each["seconds"]["12 plain runs"] for each in rounds], seconds)
        per_hour = 3600 * 12 / statistics.median(seconds)
        asked = f"{int(rounds[0]['asked'][name]):,}"
        lines.append(f"{name:24}{asked:>14}{per_hour:>17.0f}{f'{ratio.median:.2f} +- {ratio.sd:.2f}':>22}")
    return [*lines, f"(n = {len(rounds)})"]


def _orchestration() -> list[str]:
    return orchestration.report(_read("orchestration")["summary"])


def _tracking() -> list[str]:
    result = _read("tracking")
    seconds, rates = result["seconds"], result["points_a_second"]
    ratio = timing.compare(seconds["on"], seconds["off"])
    waited = [wait / whole for wait, whole in zip(seconds["waited"], seconds["on"], strict=True)]
    return [
        f"tracking: {rates['spool']:,.0f} points a second recorded, {rates['mlflow']:,.0f} brought into MLflow",
        f"a training with it takes {ratio.median:.2f} +- {ratio.sd:.2f} of one without (n = {ratio.n}), and spends "
        f"{statistics.median(waited):.2%} of its time in it",
    ]


def _scale() -> list[str]:
    result = _read("scale")
    hours = TRIALS * TRIAL_HOURS / GPUS
    busy = TRIALS * scale.driver_seconds(result) / (3600 * hours)
    points = TRIALS * POINTS / (3600 * hours)
    rate = _read("tracking")["points_a_second"]["mlflow"]
    database = TRIALS * result["bytes_of_mlflow"] / result["trials"] / 1e9
    return [
        *scale.report(result),
        f"on paper, {TRIALS:,} trials of {TRIAL_HOURS:g} h on {GPUS:,} GPUs, {POINTS:,} points each: {hours:.0f} h, "
        f"{busy:.1%} of one core for the driver,",
        f"{points:.0f} points a second of the {rate:,.0f} MLflow takes here, {database:.1f} GB of database for runs",
    ]


if __name__ == "__main__":
    main()
