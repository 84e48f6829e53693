"""Loading a state dict into a model that may know other classes than the state's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

_AUXILIARY = ("AuxLogits", "aux1", "aux2", "aux_classifier")
"""torchvision's heads that only training uses; weights and model may have them or not."""


def fit_state(model: nn.Module, state: Mapping[str, Tensor], *, source: str, num_classes: int) -> list[str]:
    """Load ``state`` into ``model`` after checking that it fits; nothing is loaded if it does not.

    Names and shapes must agree, except for a classifier of another number of classes: a linear layer or 1x1 convolution
    with ``num_classes`` outputs, which then stays as it was made. The same holds for torchvision's auxiliary heads, and
    these may also be absent on either side. Prefixes that DDP (``module.``) and ``torch.compile`` (``_orig_mod.``)
    leave are removed.

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
        classes = len(state[f"{head}.weight"])
        messages.append(f"{source}: head {head} has {classes} classes, the data {num_classes}: replaced by a fresh one")
        required = {name: value for name, value in required.items() if _owner(name) != head}
        state = {name: value for name, value in state.items() if _owner(name) != head}
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


def _other_heads(
    model: nn.Module, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], num_classes: int
) -> list[str]:
    """Return the modules that differ from the state in their number of classes alone.

    Where anything else differs, or two modules might be the classifier, there is none: the state is another network's.
    """
    differing = {name for name, value in expected.items() if name in state and state[name].shape != value.shape}
    owners = sorted({_owner(name) for name in differing})
    main = [owner for owner in owners if _top(owner) not in _AUXILIARY]
    fits = all(_differs_in_classes(model.get_submodule(owner), owner, state, num_classes) for owner in owners)
    return owners if fits and len(main) <= 1 else []


def _differs_in_classes(module: nn.Module, name: str, state: Mapping[str, Tensor], num_classes: int) -> bool:
    pointwise = isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
    if not pointwise:
        return False
    names = [f"{name}.{key}" for key in module.state_dict()]
    if any(key not in state for key in names) or len({len(state[key]) for key in names if state[key].dim()}) != 1:
        return False
    ours: dict[str, Tensor] = module.state_dict()
    return all(
        len(value) == num_classes and value.shape[1:] == state[f"{name}.{key}"].shape[1:] for key, value in ours.items()
    )


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
