"""The tables of what the aggregators reached, from what ``distillery compare --json`` said of the sweeps.

``docs/aggregator_table.py`` puts them in place; ``docs/aggregators.md`` has the commands.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tables

from distill import aggregators
from distill.aggregators import modifiers
from distill.aggregators.multi_objective import DIRECTIONS, WEIGHTINGS
from orchestrator.config.labels import snake_case

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
NAMES = {
    **{snake_case(name): name for name in (*aggregators.__all__, *modifiers.__all__, *WEIGHTINGS, *DIRECTIONS)},
    "layer": "granularity: layer",
    "log_loss": "initial: log_loss",
}
"""What the parts of an arm's label stand for."""
HARMS = ("wrong_class", "alike")
"""The planted paths."""


def harm() -> str:
    """Return how every aggregator fares without harm and under each kind of it; the safest first."""
    found = _read("harmful_path_comparison")
    rows: dict[str, dict[str, Any]] = {}
    for arm in found["arms"]:
        harm = next((path for path in HARMS if path in arm["paths"]), "none")
        row = rows.setdefault(_name(arm), {})
        if harm in row:
            raise ValueError(f"{row[harm]['arm']} and {arm['arm']} have one place in the table: {_name(arm)}, {harm}")
        row[harm] = arm
    kinds = ("none", *HARMS)
    reference = next(_name(arm) for arm in found["arms"] if arm["arm"] == found["against"])
    header = ("aggregator", "no harm", *(f"`{path}`" for path in HARMS), f"least over {reference}")
    ordered = sorted(rows.items(), key=lambda row: -_least(row[1]))
    body = [(name, *(_accuracy(arms.get(kind)) for kind in kinds), f"{_least(arms):+.2f}") for name, arms in ordered]
    return tables.markdown([header, *body])


def accuracy() -> str:
    """Return what every aggregator reached, and its time and memory over Equal's, the best first."""
    found, costs = _read("aggregators_comparison"), next(iter(_read("aggregators")["runs"].values()))["variants"]
    body = []
    for arm in found["arms"]:
        name = _name(arm)
        cost = _cost(costs, name)
        body.append(
            (
                name,
                str(arm["num_seeds"]),
                _accuracy(arm),
                _interval(arm["over_equal"]),
                f"{arm['test_mean']:.2f} ± {arm['test_sd']:.2f}",
                f"{cost['step']['median']:.2f}" if cost else "",
                f"{cost['memory']:.2f}" if cost else "",
            )
        )
    return tables.markdown([("aggregator", "n", "validation", "over Equal", "test", "step", "memory"), *body])


def searched() -> str:
    """Return what the best of the searched constant weights reached, on other seeds and on its own, beside LogSum."""
    search, confirmed = _read("static_weights_comparison"), _read("static_weights_confirmed")
    settings = [arm for arm in search["arms"] if not arm["is_alone"]]
    reached = [arm["mean"] for arm in settings]
    rows = [("", "n", "validation", "over LogSum", "test")]
    for arm in confirmed["arms"]:
        if not arm["is_alone"]:
            name = f"best of {len(settings)}, other seeds" if arm["aggregator"] == "fixed" else _name(arm)
            test = f"{arm['test_mean']:.2f} ± {arm['test_sd']:.2f}"
            rows.append((name, str(arm["num_seeds"]), _accuracy(arm), _interval(arm["over_reference"]), test))
    best = max(settings, key=lambda arm: float(arm["mean"]))
    rows.append(("the same, on the seed that chose it", "1", f"{best['mean']:.2f}", "", f"{best['test_mean']:.2f}"))
    spread = f"{statistics.fmean(reached):.2f} ± {statistics.stdev(reached):.2f}"
    rows.append(("all proposed settings, on that seed", str(len(settings)), spread, "", ""))
    return tables.markdown(rows)


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def _name(arm: Mapping[str, Any]) -> str:
    if arm["is_alone"]:
        return "student alone"
    return ", ".join(NAMES.get(part, part) for part in arm["aggregator"].split("-"))


def _least(arms: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the lowest end of the intervals of the difference to the reference."""
    return min(map(_low, arms.values()))


def _low(arm: Mapping[str, Any]) -> float:
    """Return the lower end of the interval of an arm's difference to the reference, which itself is at 0."""
    if arm["is_reference"]:
        return 0.0
    if arm["over_reference"] is None or arm["over_reference"]["low"] is None:
        raise ValueError(f"{arm['arm']}: its difference to the reference cannot be told, or has no interval")
    return float(arm["over_reference"]["low"])


def _accuracy(arm: Mapping[str, Any] | None) -> str:
    return "" if arm is None else f"{arm['mean']:.2f} ± {arm['sd']:.2f}"


def _interval(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return ""
    return f"{estimate['difference']:+.2f} [{estimate['low']:+.2f}, {estimate['high']:+.2f}]"


def _cost(costs: Mapping[str, Any], name: str) -> Any:
    """Return the measured variant of this name, or the one that looks at gradients every so many steps."""
    plain = name.removesuffix(", normalize_rows")
    starts = (f"{plain} every ", f"{plain}: taps every ")
    return next((cost for variant, cost in costs.items() if variant == plain or variant.startswith(starts)), None)
