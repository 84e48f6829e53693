"""What one forward pass tells about every module of a model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from distill.taps.layout import describe
from distill.taps.reader import Outputs, Run, named
from distill.taps.tap import OUTPUT, Layout, Tap

_ORDERS: tuple[Layout, Layout] = ("nchw", "nhwc")
_ACTIVATION_FUNCTIONS = frozenset(
    {
        F.celu,
        F.elu,
        F.gelu,
        F.hardswish,
        F.hardtanh,
        F.leaky_relu,
        F.mish,
        F.relu,
        F.relu6,
        F.selu,
        F.silu,
        torch.celu_,
        torch.relu,
        torch.relu_,
        torch.selu_,
        Tensor.relu,
        Tensor.relu_,
    }
)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


@dataclass(frozen=True, eq=False)
class Activation:
    """A module's output in a recorded forward pass; its last one where the module ran several times.

    Attributes:
        name: the module's name.
        module: the module itself.
        tap: name, shape and layout; ``None`` where the output has no known layout.
        content: equal for modules that return the same values: one tensor, or a view of all of it.
        refusal: why the activation cannot be tapped; empty where it can.
        activated_by: what turned it into an activation, if anything did last.
    """

    name: str
    module: nn.Module
    tap: Tap | None
    content: int
    refusal: str
    activated_by: ActivatedBy | None


@dataclass(frozen=True)
class ActivatedBy:
    """An activation function (ReLU, GELU, ...) that made a tensor.

    Attributes:
        module: name of the module that is the function; empty where it was called as a plain function.
        call: which call of the module it was, counted from 0.
    """

    module: str
    call: int


@dataclass(frozen=True, eq=False)
class _Call:
    name: str
    module: nn.Module
    output: Any
    version: int


class _Recorder(TorchFunctionMode):
    """The hooks of a recorded forward pass and what they saw; as a mode it sees activation functions."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.activated: dict[tuple[int, int], ActivatedBy] = {}  # by content and version
        self.resized: dict[int, int] = {}  # content of what F.interpolate returned: content of what it was given
        self._functions: list[Tensor] = []  # kept alive, so that no other tensor gets their identity

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _ACTIVATION_FUNCTIONS and isinstance(result, Tensor):
            self._functions.append(result)
            self.activated[content(result), result._version] = ActivatedBy("", 0)
        if func is F.interpolate:
            self._functions += [args[0], result]
            self.resized[content(result)] = content(args[0])
        return result

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        # Evaluation mode hides that a dropout will overwrite its input in training: count it as overwritten.
        if isinstance(module, _DROPOUTS) and module.inplace and inputs:
            torch.autograd.graph.increment_version(inputs[0])

    def after(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        version = output._version if isinstance(output, Tensor) else 0
        if _is_activation(module) and isinstance(output, Tensor):
            number = sum(call.name == name for call in self.calls)
            self.activated[content(output), version] = ActivatedBy(name, number)
        self.calls.append(_Call(name, module, output, version))

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        handles = []
        try:
            for name, module in model.named_modules():
                handles.append(module.register_forward_pre_hook(self.before))
                handles.append(module.register_forward_hook(lambda *call, name=name: self.after(name, *call)))
            yield
        finally:
            for handle in handles:
                handle.remove()


def record(
    model: nn.Module, sample: Tensor, outputs: Outputs, run: Run
) -> tuple[list[Activation], dict[str, Tensor], int, dict[str, str]]:
    """Run the model once on ``sample``, in evaluation mode and without gradient, and leave no trace on it.

    Returns:
        The activations of all modules that returned one tensor, in the order in which the modules ended; the parts of
        the output; the content of the logits, before they were resized where they were; and, by name, why the other
        modules have none.
    """
    recorder = _Recorder()
    with torch.no_grad(), _evaluation_mode(model), recorder.attached(model), recorder:
        parts = named(outputs(run(model, sample)))
    counts = Counter(call.name for call in recorder.calls)
    others = {
        name: "it does not run in evaluation mode" for name, _ in model.named_modules() if name and name not in counts
    }
    last = {call.name: index for index, call in enumerate(recorder.calls)}
    hints = _hints(recorder.calls, tuple(sample.shape))
    same: defaultdict[int, list[_Call]] = defaultdict(list)
    for call in recorder.calls:
        if isinstance(call.output, Tensor):
            same[content(call.output)].append(call)
    activations = []
    grid: tuple[int, int] | None = None
    for index, call in enumerate(recorder.calls):
        if call.name == OUTPUT or last[call.name] != index:
            continue
        if not isinstance(call.output, Tensor):
            others[call.name] = f"it returns a {type(call.output).__name__}, not one tensor"
            continue
        hint = hints[id(call.output)]
        tap = describe(call.name, tuple(call.output.shape), tuple(sample.shape), grid=grid, hint=hint)
        if tap is not None and tap.is_map:
            grid = tap.height, tap.width
        identity = content(call.output)
        refusal = _refusal(call, tap, same[identity], counts)
        activated_by = recorder.activated.get((identity, call.version))
        activations.append(Activation(call.name, call.module, tap, identity, refusal, activated_by))
    scores = content(parts[OUTPUT])
    return activations, parts, recorder.resized.get(scores, scores), others


def _is_activation(module: nn.Module) -> bool:
    """Whether a module is a function of each value by itself, such as a ReLU."""
    home = type(module).__module__
    return home == nn.ReLU.__module__ and not isinstance(
        module, nn.GLU | nn.MultiheadAttention | nn.Softmax | nn.LogSoftmax | nn.Softmin | nn.Softmax2d
    )


def content(tensor: Tensor) -> int:
    """Identify the values of a living tensor: equal for the tensor itself and for a view of all of it."""
    base = tensor._base
    return id(base if base is not None and base.numel() == tensor.numel() else tensor)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _hints(calls: list[_Call], sample_shape: tuple[int, ...]) -> dict[int, Layout]:
    """Return, by tensor, the layout that the class of the module that made it has where shapes leave no doubt."""
    votes: defaultdict[type[nn.Module], Counter[Layout]] = defaultdict(Counter)
    makers: dict[int, type[nn.Module]] = {}
    for call in calls:
        if not isinstance(call.output, Tensor):
            continue
        makers.setdefault(id(call.output), type(call.module))
        first, last = (
            describe(call.name, tuple(call.output.shape), sample_shape, grid=None, hint=hint) for hint in _ORDERS
        )
        if first is not None and first == last:
            votes[type(call.module)][first.layout] += 1
    return {
        tensor: "nhwc" if votes[maker]["nhwc"] > votes[maker]["nchw"] else "nchw" for tensor, maker in makers.items()
    }


def _refusal(call: _Call, tap: Tap | None, same: list[_Call], counts: Counter[str]) -> str:
    if counts[call.name] > 1:
        return f"it runs {counts[call.name]} times in a forward pass; tap the module around it"
    if call.output._version != call.version:
        for other in same:
            if other.version == call.output._version and other.name != OUTPUT and counts[other.name] == 1:
                return f"its output is overwritten in place; tap {other.name!r}, which returns the result"
        return "its output is overwritten in place, and no module that runs once returns the result"
    if tap is None:
        return f"its output {list(call.output.shape)} is neither a map nor tokens nor a vector, batch first"
    return ""
