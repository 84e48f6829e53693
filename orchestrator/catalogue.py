"""``distillery ls`` and ``distillery cp``: what there is, and a file to start from."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from distill.schema import describe_option, nearest, schema, suggestion
from distill.slots import AGGREGATOR, DATASET, MODEL, MODIFIER, OPTIMIZER, PATH, SCHEDULER, TASK, TRANSFORM, Slot
from orchestrator.config.errors import UserError
from orchestrator.config.stopping_slot import STOPPING_RULE

SEARCH_SPACES = "search_spaces"
REGISTRIES: dict[str, Slot] = {
    "paths": PATH,
    "aggregators": AGGREGATOR,
    "modifiers": MODIFIER,
    "tasks": TASK,
    "models": MODEL,
    "datasets": DATASET,
    "transforms": TRANSFORM,
    "optimizers": OPTIMIZER,
    "schedulers": SCHEDULER,
    "stopping_rules": STOPPING_RULE,
}
"""What ``ls`` can list, besides the search spaces."""
KINDS = (*REGISTRIES, SEARCH_SPACES)
SHOWN_OUTSIDE = ("optimizers", "schedulers")
"""Kinds of which we have none of our own."""


def ls(what: str | None) -> int:
    """Print what a file can name: name, options, and the first line of the documentation; of one thing, all of it.

    Args:
        what: one of ``KINDS``, or the name of one thing as a file has it; ``None``: paths, aggregators, modifiers,
            tasks, models, data sets and search spaces.

    Raises:
        UserError: there is no such kind, and nothing has the name.
    """
    if what is not None and what not in KINDS:
        print("\n\n".join(_documented(what)))
        return 0
    kinds = (what,) if what else tuple(name for name in KINDS if name not in ("transforms", *SHOWN_OUTSIDE))
    for position, name in enumerate(kinds):
        if len(kinds) > 1:
            print(f"{'' if position == 0 else chr(10)}{name}")
        for line in _search_space_lines() if name == SEARCH_SPACES else _registry_lines(name):
            print(f"  {line}" if len(kinds) > 1 else line)
    return 0


def cp(name: str, destination: str, *, force: bool) -> int:
    """Copy a shipped search space.

    Args:
        name: with or without ``.yaml``.
        destination: a folder, or the new file.
        force: overwrite a file that exists.

    Raises:
        UserError: there is no such search space, or the file exists.
    """
    shipped = _shipped()
    stem = name.removesuffix(".yaml")
    if stem not in shipped:
        raise UserError(
            [f"no search space '{name}'; there are {', '.join(shipped)}.{suggestion(nearest(stem, shipped))}"]
        )
    target = Path(destination)
    if target.is_dir() or destination.endswith("/"):
        target = target / f"{stem}.yaml"
    if target.exists() and not force:
        raise UserError([f"{target} exists; give another name, or --force to overwrite it"])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(shipped[stem].read_bytes())
    print(f"Copied to {target}. Next: distillery check {target}")
    return 0


def _documented(name: str) -> list[str]:
    """Return kind, name, options and documentation of everything that has this name."""
    ours = {slot: slot.offered() if "." in name else slot.registry() for slot in REGISTRIES.values()}
    found = [(slot, offered[name]) for slot, offered in ours.items() if name in offered]
    if not found:
        known = [*KINDS, *(each for offered in ours.values() for each in offered)]
        message = f"nothing is called '{name}'; distillery ls lists names, ls KIND those of {', '.join(KINDS)}."
        raise UserError([f"{message}{suggestion(nearest(name, known))}"])
    return [
        f"{slot.name}: {_signature(name, target, slot)}\n\n"
        + textwrap.indent(_readable(inspect.getdoc(target) or "no documentation"), "    ")
        for slot, target in found
    ]


def _signature(name: str, target: Any, slot: Slot) -> str:
    options = [describe_option(option) for option in schema(target).shown((*slot.reserved, *slot.offers))]
    return f"{name}({', '.join(options)})"


def _summary(target: Any) -> str:
    """Return the first line of the documentation."""
    return _readable((inspect.getdoc(target) or "").partition("\n")[0])


def _readable(documentation: str) -> str:
    """Return documentation as a terminal shows it: of a cross-reference the last name, code in single backticks."""
    text = re.sub(r":\w+:`~?(?:\w+[.])*(\w+)`", r"\1", documentation)
    text = re.sub(BORDER.pattern + r"(?:\n.+)*", _aligned, text, flags=re.MULTILINE)
    return re.sub(r"::$", ":", text.replace("``", "`"), flags=re.MULTILINE)


BORDER = re.compile(r"^=+(?: =+)+$")
"""What is above and below a table, and below its titles; it shows where the columns are."""


def _aligned(table: re.Match[str]) -> str:
    """Return a table whose columns still stand below each other when its code is in single backticks."""
    border, *rows = table[0].splitlines()
    columns = [column.span() for column in re.finditer("=+", border)]

    def shown(row: str) -> str:
        cells = [row[start:end].replace("``", "`").ljust(end - start) for start, end in columns[:-1]]
        return " ".join([*cells, row[columns[-1][0] :]]).rstrip()

    return "\n".join([border, *(row if BORDER.match(row) else shown(row) for row in rows)])


def _shipped() -> dict[str, Traversable]:
    files = sorted(resources.files(SEARCH_SPACES).iterdir(), key=lambda file: file.name)
    return {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}


def _search_space_lines() -> Iterator[str]:
    shipped = _shipped()
    width = max(map(len, shipped), default=0)
    for name, file in shipped.items():
        comment = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        summary = comment[0].lstrip("# ") if comment else ""
        yield f"{name.ljust(width)}  {summary}"


def _registry_lines(kind: str) -> Iterator[str]:
    slot = REGISTRIES[kind]
    found = slot.registry() or slot.offered()
    for name, target in sorted(found.items(), key=lambda item: item[0].lower()):
        yield _signature(name, target, slot)
        yield f"    {_summary(target)}"
    for name, kind_of in slot.attached_classes().items():
        options = [describe_option(option) for option in schema(kind_of).options.values()]
        yield f"each also takes {name}: {{{', '.join(options)}}}"
        yield f"    {_summary(kind_of)}"
    for module in slot.outside if slot.registry() else ():
        yield f"and every public {slot.name} of {module}, as {module}.NAME"
