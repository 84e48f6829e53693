"""Do the golden values notice a wrong sign, norm or reduction?  Each mutant of the source must fail at least one.

A mutant replaces one piece of a module's text; the module is executed aside, and the golden values of
`tests/distill/paths`, `tests/distill/aggregators` (modifiers and gradients among them) and
`tests/distill/test_adapter.py` run against what it defines.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from distill import adapter, aggregators, paths
from distill.aggregators import gradients, modifiers

# The goldens import their neighbours by name, as pytest lets them.
for folder in ("paths", "aggregators", "aggregators/modifiers", "."):
    if str(Path(__file__).parent / folder) not in sys.path:
        sys.path.append(str(Path(__file__).parent / folder))

FAMILIES: dict[str, ModuleType] = {
    **dict.fromkeys(paths.__all__, paths),
    **dict.fromkeys(aggregators.__all__, aggregators),
    **dict.fromkeys(modifiers.__all__, modifiers),
    **dict.fromkeys(("SharedGradients", "TapGradients"), gradients),
    "Adapter": adapter,
}


@dataclass(frozen=True)
class Mutant:
    """One change of the source that `name` is made of; in its own module, or in one beneath it."""

    name: str
    old: str
    new: str
    base: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.old} -> {self.new}"


def module_of(name: str) -> ModuleType:
    """Return the test module of `name`, which holds its goldens and its mutants."""
    return importlib.import_module(f"test_{getattr(FAMILIES[name], name).__module__.rpartition('.')[2]}")


def mutants_of(name: str) -> list[Mutant]:
    """Return what the test module's MUTANTS says of `name`: (old, new), or (old, new, module beneath) a change."""
    return [Mutant(name, *change) for change in getattr(module_of(name), "MUTANTS", {}).get(name, [])]


MUTANTS = [mutant for name in FAMILIES for mutant in mutants_of(name)]


def execute(module: ModuleType, old: str = "", new: str = "") -> ModuleType:
    """Execute the source of `module` once more, changed, without touching the imported one."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    if old and source.count(old) != 1:
        pytest.fail(f"{module.__name__} holds {old!r} {source.count(old)} times, not once: update this table")
    changed = ModuleType(module.__name__)
    changed.__file__ = module.__file__
    exec(compile(source.replace(old, new) if old else source, f"mutant of {module.__name__}", "exec"), vars(changed))
    return changed


def build(name: str, old: str = "", new: str = "", *, base: str = "") -> Any:
    """Return `name` made from changed source."""
    family = FAMILIES[name]
    own = sys.modules[getattr(family, name).__module__]
    if not base:
        return getattr(execute(own, old, new), name)
    with mock.patch.dict(sys.modules, {base: execute(importlib.import_module(base), old, new)}):
        return getattr(execute(own), name)


def failed_goldens(name: str, changed: Any) -> list[str]:
    """Return the golden values that do not hold for `changed`; anything but a wrong value is an error."""
    failed = []
    for golden in module_of(name).GOLDENS[name]:
        try:
            golden(changed)
        except AssertionError:
            failed.append(golden.__name__)
    return failed


@pytest.mark.parametrize(
    ("name", "base"),
    [*((name, "") for name in FAMILIES), *sorted({(each.name, each.base) for each in MUTANTS if each.base})],
)
def test_unchanged_source_passes(name: str, base: str) -> None:
    assert failed_goldens(name, build(name, base=base)) == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_mutant_fails(mutant: Mutant) -> None:
    changed = build(mutant.name, mutant.old, mutant.new, base=mutant.base)
    assert failed_goldens(mutant.name, changed), "no golden value notices: add one that does"


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_everything_registered_has_mutants(name: str) -> None:
    found = sum(mutant.name == name and not mutant.base for mutant in MUTANTS)
    assert found >= 3, f"add mutants of {name} to MUTANTS in {module_of(name).__name__}.py: a sign, a norm, a reduction"
