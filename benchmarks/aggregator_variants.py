"""The trainings whose cost ``benchmarks.aggregators`` measures: each aggregator, method, modifier, and diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.step import SETS
from distill import aggregators
from distill.aggregators import Adaptive, Aggregator, Equal, LogSum
from distill.aggregators.modifiers import Bound, CosineGate, Modifier, Normalize, Ramp
from distill.aggregators.multi_objective import DIRECTIONS, WEIGHTINGS
from distill.gradient_scope import Scope
from distill.trajectory import Trajectory

FOUR, ONE = SETS["four"], SETS["ST"]
METHODS = {"GradientBalance": WEIGHTINGS, "GradientDirection": DIRECTIONS}
METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.5},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 1},
    "TrimmedMean": {"trim_number": 1},
}
"""What torchjd's methods ask for."""
PERIODS = {"DistPro": 10, "GradNorm": 10}
"""Steps from one look to the next, by default, of those that do not look in every step."""
GATES: tuple[tuple[Scope, int], ...] = (("taps", 1), ("taps", 20), ("last", 20))


@dataclass(frozen=True)
class Variant:
    """One way of training.

    Args:
        make: makes the aggregator, given the number of steps from one of its looks to the next.
        every: that number as it is measured; 1 where all steps are alike.
        diagnose: where the Trainer looks at gradients, every ``every`` steps; ``None``: nowhere.
        paths: names of the paths.
    """

    make: Callable[[int], Aggregator]
    every: int = 1
    diagnose: Scope | None = None
    paths: tuple[str, ...] = FOUR


def make_variants(folder: Path) -> dict[str, Variant]:
    """Return all variants by name; the record that Replay follows is written to a folder."""
    record = folder / "trajectory.parquet"
    _write_record(record)
    options: dict[str, dict[str, Any]] = {
        "Fixed": {"weights": {"ST": 0.1, "AT": 1000.0, "NST": 10.0, "Logits": 0.1}},
        "Replay": {"file": str(record)},
    }
    made: dict[str, Variant] = {}
    for name in sorted(aggregators.__all__, key=str.lower):
        kind = getattr(aggregators, name)
        if name in METHODS:
            made |= {f"{name}, {method}": _by_method(kind, method) for method in METHODS[name]}
        elif name in PERIODS:
            made[_every(name, PERIODS[name])] = Variant(_looking(kind), PERIODS[name])
        else:
            made[name] = Variant(_always(kind, **options.get(name, {})), paths=ONE if name == "Single" else FOUR)
    made["Adaptive, initial: log_loss"] = Variant(_always(Adaptive, initial="log_loss"))
    made["Adaptive, granularity: layer"] = Variant(_always(Adaptive, granularity="layer"))
    for kind in (LogSum, Adaptive):
        made |= _modified(kind)
    made["Adaptive, granularity: layer, CosineGate: taps"] = Variant(_gated(Adaptive, "taps", granularity="layer"))
    scopes: tuple[Scope, ...] = ("taps", "last", "all")
    return made | {_every(f"Equal, diagnosis: {scope}", 50): Variant(_always(Equal), 50, scope) for scope in scopes}


def _modified(kind: Callable[..., Aggregator]) -> dict[str, Variant]:
    """Return the variants of an aggregator with one modifier."""
    modifiers: dict[str, Callable[[], Modifier]] = {
        "Bound": lambda: Bound(growth=6.0),
        "Normalize": Normalize,
        "Ramp": Ramp,
    }
    name = getattr(kind, "__name__", "")
    made = {f"{name}, {each}": Variant(_with(kind, modifier)) for each, modifier in modifiers.items()}
    gates = {_every(f"{name}, CosineGate: {scope}", each): Variant(_gated(kind, scope), each) for scope, each in GATES}
    return made | gates


def _always(kind: Callable[..., Aggregator], **options: Any) -> Callable[[int], Aggregator]:
    return lambda every: kind(**options)


def _looking(kind: Callable[..., Aggregator]) -> Callable[[int], Aggregator]:
    return lambda every: kind(every=every)


def _by_method(kind: Callable[..., Aggregator], method: str) -> Variant:
    return Variant(_always(kind, method=method, options=METHOD_OPTIONS.get(method, {})))


def _with(kind: Callable[..., Aggregator], modifier: Callable[[], Modifier]) -> Callable[[int], Aggregator]:
    return lambda every: kind(modifiers=[modifier()])


def _gated(kind: Callable[..., Aggregator], scope: Scope, **options: Any) -> Callable[[int], Aggregator]:
    return lambda every: kind(modifiers=[CosineGate(scope, every, dense=0)], **options)


def _every(name: str, steps: int) -> str:
    return name if steps == 1 else f"{name} every {steps}"


def _write_record(file: Path) -> None:
    """Write the trajectory of a run of the four paths."""
    trajectory = Trajectory({name: (name,) for name in FOUR})
    ones = [1.0] * len(FOUR)
    for step, progress in enumerate((0.0, 0.25, 0.75)):
        trajectory.append(step=step, epoch=1, progress=progress, total=5.0, task=1.0, losses=ones, weights=ones)
    trajectory.write(file)
