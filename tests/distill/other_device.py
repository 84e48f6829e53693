"""A device that is not there: its tensors hold their values on the CPU, and meet no tensor of the CPU.

What a GPU refuses is refused without one: to compute with tensors of two devices, and to give a tensor's memory to
NumPy. What a GPU allows is allowed: numbers of either device, indices on the CPU, copies. As everything is computed on
the CPU, a training on this device gives the very bits that it gives there.

The device calls itself ``meta``, which autograd knows of without a driver. It knows no autocast, and all is float32.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

OTHER = torch.device("meta")
_CPU = torch.device("cpu")
_ATEN = torch.ops.aten
_INDEX = (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default, _ATEN._index_put_impl_.default)


class Far(Tensor):
    """A tensor of the other device; ``values`` are on the CPU."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> Far:
        far = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=OTHER,
        )
        far.values = values
        return far

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Far({self.values})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextlib.contextmanager
def other_device() -> Iterator[torch.device]:
    """Let the device be there, and return it."""
    autocast, is_enabled = torch.autocast, torch.is_autocast_enabled

    class Autocast(autocast):  # type: ignore[misc, valid-type]
        """That of the CPU: torch knows none for this device."""

        def __init__(self, device_type: str, *args: Any, **options: Any) -> None:
            super().__init__("cpu" if device_type == OTHER.type else device_type, *args, **options)

    def is_autocast_enabled(device_type: str = "cpu") -> bool:
        return is_enabled("cpu" if device_type == OTHER.type else device_type)

    with (
        mock.patch("torch.autocast", Autocast),
        mock.patch("torch.is_autocast_enabled", is_autocast_enabled),
        _Functions(),
        _Operations(),
    ):
        yield OTHER


class _Operations(TorchDispatchMode):
    """Also sees operations that begin without a tensor of the device, such as ``torch.zeros(2, device=OTHER)``."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """What looks at a tensor's memory, or makes a tensor of Python's numbers, before any operation is seen."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor):
            device = kwargs.pop("device", None)
            made = args[0] if isinstance(args[0], Tensor) else func(*args, **kwargs)
            return made.to(device=device, dtype=kwargs.get("dtype"))
        if args and isinstance(args[0], Far):
            special = _OF_FAR.get(func)
            if special is not None:
                return special(*args, **kwargs)
        return func(*args, **kwargs)


def _numpy(far: Far, **_: Any) -> Any:
    raise TypeError("can't convert a tensor of another device to numpy; use Tensor.cpu() first")


def _get(far: Far, index: Any) -> Tensor:
    return Tensor.__getitem__(far, _positions(index))


def _set(far: Far, index: Any, value: Any) -> None:
    Tensor.__setitem__(far, _positions(index), value)


def _positions(index: Any) -> tuple[Any, ...]:
    """Lists of positions as tensors: else they would be made on the device, without values."""
    parts = index if isinstance(index, tuple) else (index,)
    return tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts)


_OF_FAR: Mapping[Any, Callable[..., Any]] = {
    Tensor.tolist: lambda far: far.values.tolist(),
    Tensor.numpy: _numpy,
    Tensor.new_tensor: lambda far, data: torch.tensor(data, dtype=far.dtype).to(OTHER),
    Tensor.__getitem__: _get,
    Tensor.__setitem__: _set,
}


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Do an operation on the CPU; its result is on the device where it is asked to be, else where an argument is."""
    leaves = tree_leaves((args, kwargs))
    far = [leaf for leaf in leaves if isinstance(leaf, Far)]
    if far:
        _check_devices(func, args, leaves)
    asked = kwargs.get("device")
    is_far = bool(far) if asked is None else torch.device(asked) == OTHER
    if asked is not None:
        kwargs = {**kwargs, "device": _CPU}
    plain, options = tree_map(lambda leaf: leaf.values if isinstance(leaf, Far) else leaf, (args, dict(kwargs)))
    result = func(*plain, **options)
    if far and result is plain[0]:  # in place
        return args[0]
    return tree_map(lambda leaf: Far(leaf) if is_far and type(leaf) is Tensor else leaf, result)


def _check_devices(func: Any, args: Sequence[Any], leaves: Sequence[Any]) -> None:
    if func is _ATEN.copy_.default:
        return
    if func in _INDEX:
        leaves = [args[0], *args[2:3]]
    strangers = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, Far) and leaf.ndim]
    if strangers:
        shapes = [tuple(leaf.shape) for leaf in strangers]
        raise RuntimeError(f"{func} expects all tensors on one device, found {shapes} on the CPU beside {OTHER}")
