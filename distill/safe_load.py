"""Reading tensors from files that somebody else wrote: no code runs, no memory bomb goes off."""

from __future__ import annotations

import difflib
import importlib
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

_Read = TypeVar("_Read")

_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_ALLOWED_GLOBALS = frozenset(
    {
        "collections OrderedDict",
        "torch Size",
        "torch device",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor_v2",
        "torch.storage UntypedStorage",
        *(f"torch {name}Storage" for name in _STORAGES),
        *(f"torch {name}" for name in _DTYPES),
    }
)
"""All that dense tensors, numbers, strings and their containers need, as ``module name``."""

_REFUSED_OPCODES = frozenset({"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"})
"""Other ways in which a pickle can name or build objects; ``torch.save`` uses none of them for tensors."""

_MAX_PICKLE_BYTES = 16 * 2**20
"""A tensor takes about 150 bytes of pickle: enough for 100,000 tensors."""

_ADVICE = "save the weights alone, with torch.save(model.state_dict(), path)"


def safe_load(path: Path) -> Any:
    """Read what ``torch.save`` (or safetensors) wrote, onto the CPU, without trusting the file.

    PyTorch's ``weights_only=True`` keeps a pickle from running code, but not from filling the memory: a small file may
    hold deflated storages, or tensors expanded to any size. So before it is unpickled the archive must be stored
    plainly and name nothing but tensors and containers; afterwards every tensor must be dense and no larger than its
    storage.

    Args:
        path: a file in PyTorch's zip format, or ``*.safetensors`` where that package is installed.

    Returns:
        Tensors, numbers, strings and ``None`` in dicts, lists and tuples.

    Raises:
        ValueError: the file does not exist, is damaged, or breaks one of these rules; the message names the file.
    """
    _check_exists(path)
    if path.suffix == ".safetensors":
        return _load_safetensors(path)
    _check_archive(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile or damaged pickle provokes
        raise ValueError(f"{path} cannot be read by PyTorch: {reason(error)}") from error
    _check_tensors(path, loaded)
    return loaded


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    if path.exists():
        raise ValueError(f"{path} must be a file, found a folder")
    siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    raise ValueError(f"{path} does not exist" + (f"; did you mean {path.parent / near[0]}?" if near else ""))


def _load_safetensors(path: Path) -> Any:
    try:
        safetensors = importlib.import_module("safetensors.torch")
    except ImportError as error:
        raise ValueError(f"{path} needs the package safetensors, which is not installed") from error
    try:
        return safetensors.load_file(path, device="cpu")
    except Exception as error:  # the library's own error type is not public
        raise ValueError(f"{path} cannot be read by safetensors: {reason(error)}") from error


def _check_archive(path: Path) -> None:
    """Check the zip archive, and the pickle in it, without unpacking or building anything."""
    members = _from_archive(path, zipfile.ZipFile.infolist)
    _check_members(path, members)
    pickles = [member for member in members if member.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or any(member.filename.endswith("/constants.pkl") for member in members):
        raise ValueError(f"{path} must hold exactly one pickled object, and not a TorchScript program; {_ADVICE}")
    if pickles[0].file_size > _MAX_PICKLE_BYTES:
        raise ValueError(
            f"{path}: what describes the tensors must be below {_MAX_PICKLE_BYTES} bytes, "
            f"found {pickles[0].file_size}; {_ADVICE}"
        )
    _check_pickle(path, _from_archive(path, lambda archive: archive.read(pickles[0])))


def _from_archive(path: Path, read: Callable[[zipfile.ZipFile], _Read]) -> _Read:
    try:
        with zipfile.ZipFile(path) as archive:
            return read(archive)
    except Exception as error:  # zipfile raises many types, among them struct.error
        raise ValueError(
            f"{path} must be a file in PyTorch's zip format (the default since version 1.6), but it is older, damaged "
            f"or something else: {reason(error)}; {_ADVICE}"
        ) from error


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    size_bytes = path.stat().st_size
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError(f"{path}: entries must be stored plainly, but {member.filename!r} is compressed")
    total_bytes = sum(member.file_size for member in members)
    if total_bytes > size_bytes:
        raise ValueError(f"{path}: entries claim {total_bytes} bytes together, but the file has {size_bytes}")


def _check_pickle(path: Path, pickle: bytes) -> None:
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name in _REFUSED_OPCODES:
                raise ValueError(f"it uses the opcode {opcode.name}")
            if opcode.name == "GLOBAL" and argument not in _ALLOWED_GLOBALS:
                raise ValueError(f"it names {str(argument).replace(' ', '.')}")
    except Exception as error:  # genops raises whatever its readers do
        raise ValueError(
            f"{path} must hold only tensors, numbers, strings and containers, but {reason(error)}; {_ADVICE}"
        ) from error


def _check_tensors(path: Path, loaded: Any) -> None:
    """Check every tensor; each object once, for a pickle can share one a billion times."""
    waiting: list[tuple[str, Any]] = [("", loaded)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor):
            _check_tensor(path, name, value)
        elif isinstance(value, dict):
            waiting.extend((f"{name}.{key}" if name else str(key), child) for key, child in value.items())
        elif isinstance(value, list | tuple):
            waiting.extend((f"{name}[{position}]", child) for position, child in enumerate(value))


def _check_tensor(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ValueError(f"{path}: tensors must be dense, but {name} is {tensor.layout} on {tensor.device.type}")
    needed, stored = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if needed > stored:
        raise ValueError(
            f"{path}: tensors must be stored whole, but {name} of shape {list(tensor.shape)} has {stored} bytes stored"
        )


def reason(error: BaseException) -> str:
    """Return the line of an error's message that says what is wrong, without PyTorch's advice to trust the file."""
    lines = [line.strip() for line in str(error).splitlines() if "weights_only" not in line]
    return next((line for line in lines if line), type(error).__name__)
