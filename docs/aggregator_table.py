"""The tables of all aggregators and modifiers: what they are, read off the classes, and what they cost as measured.

``python docs/aggregator_table.py`` prints them, ``--write`` puts them in place. A test compares ``docs/aggregators.md``
with this.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aggregator_experiments
import tables

from distill import aggregators
from distill.aggregators import Aggregator, modifiers
from distill.aggregators.needs import Needs
from distill.schema import schema

DOCUMENT = Path(__file__).parent / "aggregators.md"
COSTS = Path(__file__).parents[1] / "benchmarks" / "results" / "aggregators.json"
GENERATOR = "docs/aggregator_table.py"
HEADER = ("aggregator", "what it does", "looks at", "cost", "below 0", "learns", "source")
LOOKS = {
    "taps": "1 + keys backward passes (taps); the task's gradients in all these activations in memory, in float64",
    "last": "1 + keys backward passes (last); 1 + keys gradients in memory",
    "all": "1 + keys backward passes (all); 1 + keys gradients in memory",
}
"""What a look at gradients costs, by scope."""
HELD_OUT = "1 forward and 1 backward pass ({}) of held-out samples, without paths; a copy of the buffers"
"""What a look at the gradient of held-out samples costs in a scope."""
COLUMNS = ("step", "with the teacher", "memory")
"""Of each run of the benchmark."""
EXAMPLES: dict[str, dict[str, Any]] = {
    "Bound": {"growth": 6.0},
    "Fixed": {"weights": {"a": 1.0, "b": 1.0}},
    "GradientBalance": {"method": "MGDA"},
    "GradientDirection": {"method": "ConFIG"},
}
"""Options of those that have required ones."""


def table() -> str:
    """Return what the aggregators are, in Markdown."""
    return tables.markdown([HEADER, *(_row(name) for name in sorted(aggregators.__all__, key=str.lower))])


def modifier_table() -> str:
    """Return what the modifiers are, in Markdown."""
    header = ("modifier", "what it does", "cost", "options", "source")
    rows = []
    for name in sorted(modifiers.__all__, key=str.lower):
        kind = getattr(modifiers, name)
        options = ", ".join(f"`{option}`" for option in schema(kind).options)
        made = kind(**EXAMPLES.get(name, {}))
        cost = _cost(made.needs, every=made.every, dense=made.dense)
        rows.append((f"`{name}`", tables.first_sentence(kind), cost, options, tables.source(kind)))
    return tables.markdown([header, *rows])


def _row(name: str) -> tuple[str, ...]:
    kind = getattr(aggregators, name)
    made = _example(name)
    return (
        f"`{name}`",
        tables.first_sentence(kind),
        _looks_at(made) if made is not None else "a file",
        _cost(made.needs, every=made.every) if made is not None else "",
        "taken" if made is None or made.accepts_negative else "refused",
        _learns(made) if made is not None else "",
        tables.source(kind),
    )


def _example(name: str) -> Aggregator | None:
    """Return a connected instance, or nothing where one takes a file or a single path."""
    try:
        made: Aggregator = getattr(aggregators, name)(**EXAMPLES.get(name, {}))
    except TypeError:
        return None
    try:
        made.connect({"a": ("x",), "b": ("y",)})
    except ValueError:
        made.connect({"a": ("x",)})
    return made


def _looks_at(made: Aggregator) -> str:
    needs = made.needs
    seen = ["losses"]
    seen += [f"gradients ({scope})" for scope in sorted(needs.gradients)]
    seen += ["losses after the step"] if needs.second_look else []
    seen += ["held-out samples"] if needs.held_out else []
    return ", ".join(seen)


def _cost(needs: Needs, *, every: int, dense: int = 0) -> str:
    """Return what is needed beyond a step's own forward and backward pass, and how often."""
    costs = [LOOKS[scope] for scope in sorted(needs.gradients)]
    costs += ["1 forward pass; a copy of the buffers"] if needs.second_look else []
    costs += [HELD_OUT.format(scope) for scope in sorted(needs.held_out_gradients)]
    if not costs or every == 1:
        return "; ".join(costs)
    first = f" and in each of the first {dense}" if dense else ""
    return "; ".join([*costs, f"every {every} steps{first}"])


def _learns(made: Aggregator) -> str:
    if list(made.parameters()):
        return "by the optimiser"
    return "keeps a state" if made.state_dict() else ""


def costs() -> str:
    """Return what everything costs, in Markdown: how each run was measured, then a row a variant."""
    saved = json.loads(COSTS.read_text(encoding="utf-8"))["runs"].values()
    runs = dict(zip(string.ascii_uppercase, saved, strict=False))
    lines = [f"- {letter}: {_how(run['setting'])}" for letter, run in runs.items()]
    header = ("variant", *(f"{column}, {letter}" for letter in runs for column in COLUMNS))
    names = dict.fromkeys(name for run in saved for name in run["variants"])
    rows = [(name, *(cell for run in saved for cell in _cells(run["variants"].get(name)))) for name in names]
    return "\n".join([*lines, "", tables.markdown([header, *rows])])


def _how(setting: Mapping[str, Any]) -> str:
    device = f"{setting['threads']} threads of a CPU" if setting["device_type"] == "cpu" else setting["device"]
    live = ", measured with the teacher running along" if setting["live"] else ""
    batch = f"batches of {setting['batch']}, {setting['precision']}"
    return f"{setting['pair']}, {batch}, {device}, n = {setting['rounds']}{live}"


def _cells(row: Mapping[str, Any] | None) -> tuple[str, str, str]:
    if row is None:
        return ("", "", "")
    look = f" (a look: {row['look']['median']:.2f})" if "look" in row else ""
    step, live = (_ratio(row[key]) if key in row else "" for key in ("step", "live"))
    return (f"{step}{look}", live, f"{row['memory']:.2f}")


def _ratio(ratio: Mapping[str, float]) -> str:
    """Return median and standard deviation, with a third decimal where that one is known."""
    places = 2 if ratio["sd"] >= 0.005 else 3
    return f"{ratio['median']:.{places}f} ± {ratio['sd']:.{places}f}"


def document() -> str:
    """Return ``docs/aggregators.md`` with the tables as classes and measurements have them now."""
    blocks = {
        "aggregators": table,
        "modifiers": modifier_table,
        "what they cost": costs,
        "what they reach": aggregator_experiments.accuracy,
        "constant weights, searched": aggregator_experiments.searched,
        "a path that hurts": aggregator_experiments.harm,
    }
    return tables.document(DOCUMENT, {f"{GENERATOR}: {name}": make for name, make in blocks.items()})


if __name__ == "__main__":
    tables.main(DOCUMENT, document, lambda: f"{table()}\n\n{modifier_table()}\n\n{costs()}")
