"""The tables of all aggregators and modifiers, read off the classes.

``python docs/aggregator_table.py`` prints them, ``--write`` puts them in place. A test compares ``docs/aggregators.md``
with this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tables

from distill import aggregators
from distill.aggregators import Aggregator, modifiers
from distill.schema import schema

DOCUMENT = Path(__file__).parent / "aggregators.md"
GENERATOR = "docs/aggregator_table.py"
HEADER = ("aggregator", "what it does", "looks at", "below 0", "learns", "source")
EXAMPLES: dict[str, dict[str, Any]] = {
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
    header = ("modifier", "what it does", "options", "source")
    rows = []
    for name in sorted(modifiers.__all__, key=str.lower):
        kind = getattr(modifiers, name)
        options = ", ".join(f"`{option}`" for option in schema(kind).options)
        rows.append((f"`{name}`", tables.first_sentence(kind), options, tables.source(kind)))
    return tables.markdown([header, *rows])


def _row(name: str) -> tuple[str, ...]:
    kind = getattr(aggregators, name)
    made = _example(name)
    return (
        f"`{name}`",
        tables.first_sentence(kind),
        _looks_at(made) if made is not None else "a file",
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


def _learns(made: Aggregator) -> str:
    if list(made.parameters()):
        return "by the optimiser"
    return "keeps a state" if made.state_dict() else ""


def document() -> str:
    """Return ``docs/aggregators.md`` with the tables as the classes have them now."""
    return tables.document(
        DOCUMENT,
        {f"{GENERATOR}: aggregators": table, f"{GENERATOR}: modifiers": modifier_table},
    )


if __name__ == "__main__":
    tables.main(DOCUMENT, document, lambda: f"{table()}\n\n{modifier_table()}")
