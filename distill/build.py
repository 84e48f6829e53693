"""A mapping becomes an object: ``{use: SoftTarget, temperature: 4.0}``.

The constructor is the schema. Names resolve in :mod:`distill.slots`, options are judged by their annotations in
:mod:`distill.annotations`, and an option that is itself an object (a list of transforms, schedules in a schedule) is
judged the same way, one level down.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from distill.annotations import fit
from distill.blueprint import Blueprint, RejectedError
from distill.schema import REQUIRED, Fitted, Problem, fit_options, found, schema
from distill.slots import SLOTS, Slot, UnknownNameError

USE = "use"
"""The key of a mapping that names the class or function; all other keys are its options."""


def check(
    spec: Any, slot: Slot, *, modules: Sequence[str] = (), provided: Mapping[str, Any] | None = None
) -> list[Problem]:
    """Return everything that is wrong with a specification; an empty list: it can be built.

    Args:
        spec: what the file says.
        slot: where it stands.
        modules: modules of the user's own that the file names.
        provided: what the program will give. Where names and types are right, the object is made once, to hear what
            its constructor says. ``None``: that is not known yet, and nothing is made.
    """
    drawn, problems = _fit_spec(spec, slot, modules=modules, given=provided or {})
    if problems or provided is None:
        return problems
    try:
        drawn.make(**provided)
    except RejectedError as error:
        return [error.problem]
    except Exception as error:  # a constructor of the user's own may raise anything
        return [Problem("", f"{type(error).__name__}: {error}")]
    return []


def blueprint(spec: Any, slot: Slot, *, modules: Sequence[str] = (), given: Collection[str] = ()) -> Blueprint:
    """Return the checked specification, to be made later.

    Args:
        spec: what the file says.
        slot: where it stands.
        modules: modules of the user's own that the file names.
        given: names of the options that the program will give to :meth:`Blueprint.make`, besides the slot's own.

    Raises:
        ValueError: an unknown name, an unknown, missing or ill-typed option; all of them in one message.
    """
    drawn, problems = _fit_spec(spec, slot, modules=modules, given=given)
    if problems:
        raise ValueError(f"{slot.name}: {'; '.join(map(str, problems))}")
    return drawn


def build(spec: Any, slot: Slot, *, modules: Sequence[str] = (), **provided: Any) -> Any:
    """Make the object that a specification describes.

    Args:
        spec: what the file says.
        slot: where it stands.
        modules: modules of the user's own that the file names.
        provided: options that the program gives where the signature names them.

    Raises:
        ValueError: as :func:`blueprint`, or the constructor refuses an option.
    """
    return blueprint(spec, slot, modules=modules, given=provided).make(**provided)


def _fit_spec(
    spec: Any, slot: Slot, *, modules: Sequence[str], given: Collection[str]
) -> tuple[Blueprint, list[Problem]]:
    nothing = Blueprint("", dict, {})
    if not isinstance(spec, Mapping) or not isinstance(spec.get(USE), str):
        hint = f"; write {{use: {spec}}}" if isinstance(spec, str) else ""
        what = "without 'use'" if isinstance(spec, Mapping) and USE not in spec else ""
        what = what or f"found {found(spec.get(USE) if isinstance(spec, Mapping) else spec)}"
        return nothing, [Problem("", f"must be a mapping with the name of a {slot.name} under 'use', {what}{hint}")]
    name = spec[USE]
    try:
        target = slot.resolve(name, modules)
    except UnknownNameError as error:
        return nothing, [error.problem]
    attached, problems_attached = _fit_attached(spec, slot)
    options, problems = fit_options(
        {key: value for key, value in spec.items() if key != USE and key not in slot.attached},
        target,
        partial(fit, leaf=partial(_fit_nested, modules=modules, given=given)),
        owner=name.rpartition(".")[2],
        given=(*given, *slot.reserved, *slot.offers),
        reserved=slot.reserved,
    )
    settled = {option: value for option, value in slot.settled.items() if option in schema(target).options}
    drawn = Blueprint(name, target, options, _defaults(slot, name, target, given), attached, settled)
    return drawn, problems + problems_attached


def _fit_attached(spec: Mapping[str, Any], slot: Slot) -> tuple[dict[str, Any], list[Problem]]:
    """Judge what a specification gives beside the options of its class."""
    fitted: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, kind in slot.attached_classes().items():
        if name in spec:
            fitted[name], found_problems = fit(spec[name], kind)
            problems += [problem.under(name) for problem in found_problems]
    return fitted, problems


def _defaults(slot: Slot, name: str, target: Any, given: Collection[str]) -> dict[str, Any]:
    """Return the defaults that belong to a file's meaning: those of our own classes, which may change with a release.

    The classes of others have dozens (``foreach``, ``capturable``) that would bury what the file says.
    """
    if "." in name:
        return {}
    options = schema(target).options.values()
    return {
        option.name: option.default
        for option in options
        if option.default is not REQUIRED and option.name not in (*given, *slot.reserved, *slot.offers)
    }


def _fit_nested(value: Any, annotation: Any, *, modules: Sequence[str], given: Collection[str]) -> Fitted | None:
    """Judge an option whose annotation is the base of a slot as a specification of its own."""
    if not inspect.isclass(annotation):
        return None
    # By name first: comparing the classes imports them, torchvision's among them.
    slots = (slot for slot in SLOTS.values() if slot.base.endswith(f":{annotation.__name__}"))
    slot = next((slot for slot in slots if slot.base_class() is annotation), None)
    return _fit_spec(value, slot, modules=modules, given=given) if slot else None
