"""Loading a state dict into a model that may know other classes than the state's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn

_AUXILIARY = ("AuxLogits", "aux1", "aux2", "aux_classifier")
"""torchvision's heads that only training uses; weights and model may have them or not."""


def fit_state(model: nn.Module, state: Mapping[str, Tensor], *, source: str, num_classes: int) -> list[str]:
    """Load ``state`` into ``model`` after checking that it fits; nothing is loaded if it does not.

    Names and shapes must agree, except for a head of another number of classes, which then stays as it was made: a
    linear layer with ``num_classes`` outputs, a convolution with as many for each anchor, or several of these in one
    part of the model, as torchvision's detectors and LRASPP have them. The same holds for torchvision's auxiliary
    heads, and these may also be absent on either side. Prefixes that DDP (``module.``) and ``torch.compile``
    (``_orig_mod.``) leave are removed.

    Args:
        model: the model to load into.
        state: tensors by name.
        source: what the messages call the weights.
        num_classes: number of classes of the data.

    Returns:
        One message about what was loaded, and one for each head that was not.

    Raises:
        ValueError: names, shapes or kinds of numbers differ, or a value is not finite.
    """
    expected = model.state_dict()
    state = _unwrapped(state, expected)
    messages = []
    fresh, unused = _auxiliary_differences(state, expected)
    messages += [f"{source}: has no auxiliary head {name}: it starts fresh" for name in fresh]
    messages += [f"{source}: auxiliary head {name} is left out, the model has none" for name in unused]
    state = {name: value for name, value in state.items() if _top(name) not in unused}
    required = {name: value for name, value in expected.items() if _top(name) not in fresh}
    for head in _other_heads(model, state, expected, num_classes):
        found = f"{source}: head {head.name} has {head.num_classes} classes, the data {num_classes}"
        messages.append(f"{found}: replaced by a fresh one, which is still to be trained")
        required = {name: value for name, value in required.items() if _owner(name) not in head.layers}
        state = {name: value for name, value in state.items() if _owner(name) not in head.layers}
    _check_fit(source, state, required)
    model.load_state_dict(state, strict=False)
    return [f"{source}: {len(state)} tensors loaded", *messages]


def _unwrapped(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    names = {name: name.replace("_orig_mod.", "") for name in state}
    ours = any(_top(name) == "module" for name in expected)
    while not ours and all(name.startswith("module.") for name in names.values()):
        names = {name: short.removeprefix("module.") for name, short in names.items()}
    return {names[name]: value for name, value in state.items()}


def _top(name: str) -> str:
    return name.partition(".")[0]


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _auxiliary_differences(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Return the auxiliary heads that only the model has, and those that only the state has."""
    ours, theirs = {_top(name) for name in expected}, {_top(name) for name in state}
    fresh = [name for name in _AUXILIARY if name in ours - theirs]
    unused = [name for name in _AUXILIARY if name in theirs - ours]
    return fresh, unused


@dataclass(frozen=True)
class _Head:
    """Layers of the model that the state has for another number of classes; ``name`` is what they have in common."""

    name: str
    layers: tuple[str, ...]
    num_classes: int


def _other_heads(
    model: nn.Module, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], num_classes: int
) -> list[_Head]:
    """Return the heads that differ from the state in their number of classes alone.

    Where anything else differs, or two parts of the model might be the classifier, there is none: the state is another
    network's.
    """
    differing = {name for name, value in expected.items() if name in state and state[name].shape != value.shape}
    owners = sorted({_owner(name) for name in differing})
    classes = {owner: _classes_of(model.get_submodule(owner), owner, state, num_classes) for owner in owners}
    main = tuple(owner for owner in owners if _top(owner) not in _AUXILIARY)
    common = main[0] if len(main) == 1 else _common_part(main)
    lone = model.get_submodule(main[0]) if len(main) == 1 else None
    is_wide = isinstance(lone, nn.Linear) and lone.out_features != num_classes
    if not all(classes.values()) or is_wide or (main and not common) or len({classes[owner] for owner in main}) > 1:
        return []
    heads = [_Head(owner, (owner,), classes[owner]) for owner in owners if owner not in main]
    return [*heads, _Head(common, main, classes[main[0]])] if main else heads


def _common_part(names: Sequence[str]) -> str:
    """Return the innermost module that all of these lie in; empty where that is the model itself."""
    parts = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, parts))


def _classes_of(module: nn.Module, name: str, state: Mapping[str, Tensor], num_classes: int) -> int:
    """Return for how many classes the state has a layer that has ``num_classes`` here; 0 where more differs."""
    ours: dict[str, Tensor] = module.state_dict()
    if not isinstance(module, nn.Linear | nn.Conv2d) or any(f"{name}.{key}" not in state for key in ours):
        return 0
    pairs = [(value, state[f"{name}.{key}"]) for key, value in ours.items()]
    if any(given.dim() != value.dim() or given.shape[1:] != value.shape[1:] for value, given in pairs):
        return 0
    sizes = {(len(value), len(given)) for value, given in pairs}
    own, others = next(iter(sizes))
    per_class, rest = divmod(own, num_classes)
    return others // per_class if len(sizes) == 1 and not rest and others % per_class == 0 else 0


def _check_fit(source: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    # Old files lack this counter; BatchNorm starts it at zero, as PyTorch itself does for them.
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in expected]
    shared = {name: (state[name], value) for name, value in expected.items() if name in state}
    shapes = [
        f"{name} {list(given.shape)} instead of {list(wanted.shape)}"
        for name, (given, wanted) in shared.items()
        if given.shape != wanted.shape
    ]
    kinds = [
        f"{name} {given.dtype} instead of {wanted.dtype}"
        for name, (given, wanted) in shared.items()
        if (given.is_floating_point(), given.is_complex()) != (wanted.is_floating_point(), wanted.is_complex())
    ]
    findings = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another kind": kinds}
    if any(findings.values()):
        raise ValueError(
            f"{source} does not fit the model: "
            + "; ".join(f"{len(names)} {what}: {few(names)}" for what, names in findings.items() if names)
        )
    # as the model will hold them: a large float64 overflows
    infinite = [name for name, (given, wanted) in shared.items() if not torch.isfinite(given.to(wanted.dtype)).all()]
    if infinite:
        raise ValueError(f"{source}: values must be finite, but {len(infinite)} tensors are not: {few(infinite)}")


def few(names: Iterable[str], limit: int = 5) -> str:
    """Return the first names of a list, and how many more there are."""
    listed = list(names)
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest} more" if rest > 0 else "")
