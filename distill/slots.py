"""Which names a place in a configuration accepts, and what they mean.

A name without dots is looked up in a package of ours, whose ``__all__`` is the registry. A dotted name resolves by
contract, not by prefix (``torch.optim.swa_utils.torch.os.system`` starts with an allowed prefix, too): exactly one
segment after an allowed module, public in that very module, made there, and of the kind that the slot expects.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import ModuleType
from typing import Any

from distill.schema import Problem, nearest, return_type


def exported(module: ModuleType) -> Iterable[str]:
    """Return the public names of a module: its ``__all__``, or else whatever has no leading underscore."""
    names: Iterable[str] = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    return names


def listed_models(module: ModuleType) -> Iterable[str]:
    """Return the names of torchvision's models of one kind: what its own registry lists for the module.

    Those that find keypoints or outlines besides boxes are left out: there are no data for them.
    """
    registry = importlib.import_module("torchvision.models")
    names: Iterable[str] = registry.list_models(module=module, exclude=("keypointrcnn_*", "maskrcnn_*"))
    return names


@dataclass(frozen=True, eq=False)
class Slot:
    """A place in a configuration that takes ``{use: NAME, **options}``.

    Attributes:
        name: what stands there, in the words of messages.
        base: class that whatever stands there must be or make, as ``module:Class``.
        package: our package whose ``__all__`` is the registry; empty where there is none.
        outside: modules of others whose public names count, each with the function that lists them.
        reserved: options that the program gives, and why a file must not.
        offers: options that the program fills in where a file leaves them out.
        settled: options that are given these values where a signature names them, whatever its own default.
        attached: attributes that a file can give every object of this slot beside the options of its class, each with
            the dataclass that it is, as ``module:Class``.
    """

    name: str
    base: str
    package: str = ""
    outside: Mapping[str, Callable[[ModuleType], Iterable[str]]] = field(default_factory=dict)
    reserved: Mapping[str, str] = field(default_factory=dict)
    offers: tuple[str, ...] = ()
    settled: Mapping[str, Any] = field(default_factory=dict)
    attached: Mapping[str, str] = field(default_factory=dict)

    def base_class(self) -> type:
        """Import and return the base."""
        return _class(self.base)

    def attached_classes(self) -> dict[str, type]:
        """Import and return the classes of what can be attached, by name."""
        return {name: _class(where) for name, where in self.attached.items()}

    def accepts(self, candidate: Any) -> bool:
        """Whether ``candidate`` is of this slot's kind: a concrete class below the base, or its factory."""
        base = self.base_class()
        if inspect.isclass(candidate):
            return issubclass(candidate, base) and candidate is not base and not inspect.isabstract(candidate)
        returned = return_type(candidate) if inspect.isfunction(candidate) else None
        return inspect.isclass(returned) and issubclass(returned, base)

    def registry(self) -> dict[str, Any]:
        """Return what our package offers for this slot, by name."""
        return _public(self, self.package, exported) if self.package else {}

    def offered(self) -> dict[str, Any]:
        """Return everything that can stand here without naming a module of the user's own, by its name in a file."""
        others = [
            {f"{module}.{name}": value for name, value in _public(self, module, names).items()}
            for module, names in self.outside.items()
        ]
        return {name: value for group in [self.registry(), *others] for name, value in group.items()}

    def resolve(self, name: str, modules: Sequence[str] = ()) -> Any:
        """Return the class or function that ``name`` means here.

        Args:
            name: as written in a file.
            modules: modules of the user's own that the file names explicitly.

        Raises:
            UnknownNameError: nothing of this kind has the name.
        """
        module, _, last = name.rpartition(".")
        if not module:
            found = self.registry()
        elif module in self.outside:
            found = _public(self, module, self.outside[module])
        elif module in modules:
            found = _public(self, module, _defined)
        else:
            raise self._not_allowed(name, modules)
        if last in found:
            return found[last]
        raise self._unknown(name, found)

    def _unknown(self, name: str, found: Mapping[str, Any]) -> UnknownNameError:
        """Say what there is, and which of it was probably meant."""
        module, _, last = name.rpartition(".")
        if not module:
            elsewhere = [full for full in self.offered() if full.rpartition(".")[2].lower() == last.lower()]
            meant = next(iter(elsewhere), "") or nearest(last, found)
            public = [f"a public name of {outside}" for outside in self.outside]
            valid = ", or ".join([*([", ".join(sorted(found))] if found else []), *public])
            return UnknownNameError(f"unknown {self.name} '{name}'{self._misplaced(name)}; valid: {valid}.", meant)
        close = nearest(last, found)
        lacking = sorted(getattr(getattr(_import(module), last, None), "__abstractmethods__", ()))
        if lacking:
            return UnknownNameError(f"{name} must have what its base declares, found no {', '.join(lacking)}.", "")
        message = (
            f"{module} has no {self.name} '{last}': it must be public and defined there, a class below "
            f"{self.base.replace(':', '.')} or a function annotated to return one."
        )
        return UnknownNameError(message, f"{module}.{close}" if close else "")

    def _misplaced(self, name: str) -> str:
        """Say what else has this name, and does not belong here."""
        kinds = [slot.name for slot in SLOTS.values() if slot is not self and name in slot.registry()]
        return f", for {name} is {_article(kinds[0])}" if kinds else ""

    def _not_allowed(self, name: str, modules: Sequence[str]) -> UnknownNameError:
        allowed = " or ".join([*self.outside, *modules])
        rule = f"a dotted {self.name} is one segment after {allowed}; " if allowed else ""
        message = f"'{name}' is not allowed: {rule}a module of your own must stand under the file's key 'modules'."
        return UnknownNameError(message, nearest(name.rpartition(".")[2], self.registry()))


class UnknownNameError(ValueError):
    """A name that nothing of the slot's kind has; ``nearest`` is the one that was probably meant."""

    def __init__(self, message: str, nearest_name: str = "") -> None:
        super().__init__(message)
        self.problem = Problem("use", message, nearest_name)


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _class(where: str) -> type:
    module, _, name = where.partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


def _defined(module: ModuleType) -> Iterable[str]:
    """Return the public names that are defined in the module itself, not imported into it."""
    return [name for name in exported(module) if getattr(getattr(module, name), "__module__", "") == module.__name__]


def _import(name: str) -> ModuleType:
    """Import a module; whatever goes wrong in one of the user's own is a mistake of the file."""
    try:
        return importlib.import_module(name)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnknownNameError(f"cannot import {name}, searched on the Python path: {reason}") from error


@cache
def _public(slot: Slot, module_name: str, names: Callable[[ModuleType], Iterable[str]]) -> dict[str, Any]:
    """Return the module's public names of the slot's kind that come from the module or from below it."""
    module = _import(module_name)
    found: dict[str, Any] = {}
    for name in names(module):
        candidate = getattr(module, name, None)
        home = getattr(candidate, "__module__", None) or ""
        if f"{home}.".startswith(f"{module_name}.") and slot.accepts(candidate):
            found[name] = candidate
    return found


_BY_DATA = "the data set says how many"
PATH = Slot(
    "path",
    "distill.paths:Path",
    package="distill.paths",
    attached={"schedule": "distill.paths.schedule:Schedule"},
)
AGGREGATOR = Slot("aggregator", "distill.aggregators:Aggregator", package="distill.aggregators")
MODIFIER = Slot("modifier", "distill.aggregators.modifiers.base:Modifier", package="distill.aggregators.modifiers")
TASK = Slot("task", "distill.tasks:Task", package="distill.tasks")
DATASET = Slot("dataset", "distill.data.base:Dataset", package="distill.data")
TRANSFORM = Slot("transform", "distill.data.transforms.base:Transform", package="distill.data.transforms")
MODEL = Slot(
    "model",
    "torch.nn:Module",
    package="distill.models",
    outside={
        "torchvision.models": listed_models,
        "torchvision.models.segmentation": listed_models,
        "torchvision.models.detection": listed_models,
    },
    reserved={
        "num_classes": _BY_DATA,
        "in_channels": _BY_DATA,
        "weights": "it stands beside the model, as in {model: {use: ...}, weights: DEFAULT}",
        "weights_backbone": "it stands beside the model, as in {model: {use: ...}, weights_backbone: DEFAULT}",
        "progress": "weights are fetched without a bar",
    },
    settled={"weights_backbone": None},  # torchvision's dense models would fetch some unasked
)
OPTIMIZER = Slot(
    "optimizer",
    "torch.optim:Optimizer",
    outside={"torch.optim": exported},
    reserved={"params": "they are the student's, the adapters' and the aggregator's"},
)
SCHEDULER = Slot(
    "scheduler",
    "torch.optim.lr_scheduler:LRScheduler",
    outside={"torch.optim.lr_scheduler": exported},
    reserved={"optimizer": "it is the one of train.optimizer", "last_epoch": "resuming sets it"},
    offers=("total_steps", "T_max", "total_iters"),
)
IMAGE_TRANSFORM = Slot(
    "image transform", "torchvision.transforms.v2:Transform", outside={"torchvision.transforms.v2": exported}
)
SLOTS = {
    slot.name: slot
    for slot in (PATH, AGGREGATOR, MODIFIER, TASK, MODEL, DATASET, TRANSFORM, OPTIMIZER, SCHEDULER, IMAGE_TRANSFORM)
}
"""All slots by name."""
