"""Reads taps out of a model while it trains."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from distill.taps.tap import OUTPUT, Tap, is_output

Outputs = Callable[[Any], Tensor | Mapping[str, Tensor]]
"""Takes from what a model returns the logits, or several parts of it by tap name, the logits under ``OUTPUT``."""

Run = Callable[[nn.Module, Tensor], Any]
"""Runs a model on images."""


class TapReader:
    """Calls a model and returns the tapped activations with its output.

    The model is not modified: it gets forward hooks, which :meth:`close` removes, and which do nothing when the model
    is called by anyone else. Nothing is kept between calls, so that no graph outlives its step. Works inside DDP, under
    autocast (activations keep their type) and with channels-last memory.

    Args:
        model: the model that was probed.
        taps: what to read; the parts of the output are always read.
        outputs: takes the logits, or several parts, from what the model returns.
        run: runs the model; by default it is called.

    Raises:
        ValueError: the model has no module of a tap's name.
    """

    def __init__(self, model: nn.Module, taps: Iterable[Tap], outputs: Outputs, run: Run | None = None) -> None:
        self._model = model
        self._taps = {tap.name: tap for tap in taps if not is_output(tap.name)}
        self._outputs = outputs
        self._run = run or call
        self._seen: dict[str, tuple[Tensor, int]] | None = None
        self._awaited: frozenset[str] | None = None
        self._calls: dict[str, int] = {}
        modules = dict(model.named_modules())
        for tap in self._taps.values():
            if tap.module not in modules:
                nearest = difflib.get_close_matches(tap.module, modules)
                raise ValueError(
                    f"the model has no module {tap.module!r}; nearest names: {', '.join(nearest) or 'none'}"
                )
        self._handles = [self._hook(tap, modules[tap.module]) for tap in self._taps.values()]

    def __call__(self, images: Tensor, sources: dict[str, Tensor] | None = None) -> tuple[Any, dict[str, Tensor]]:
        """Run the model.

        Args:
            images: ``[batch, channel, height, width]``.
            sources: gets, by tap name, the model's own tensors that the activations are views of: what the output
                depends on, so that gradients of both can be taken there.

        Returns:
            What the model returned, and by tap name the activations as ``[batch, channel, height, width]``, views of
            the model's own tensors with their gradient; the parts of the output as they are, under ``OUTPUT`` the
            logits.

        Raises:
            ValueError: in this pass a tapped module did not run, ran twice, returned no single tensor, or was
                overwritten in place.
        """
        seen = self._start()
        try:
            output = self._run(self._model, images)
        finally:
            self._seen = None
        parts = named(self._outputs(output))
        if sources is not None:
            sources |= {**parts, **{name: tensor for name, (tensor, _) in seen.items()}}
        return output, parts | {name: self._activation(name, seen) for name in self._taps}

    def read(self, images: Tensor, only: Collection[str]) -> dict[str, Tensor]:
        """Return some of the taps, and run the model no deeper than these need.

        Behind the last of them the model stops, unless its output is asked for. For models whose forward pass
        changes nothing in them (evaluation mode), and without gradient.

        Args:
            images: ``[batch, channel, height, width]``.
            only: names among the taps, and of parts of the output, such as ``OUTPUT``.

        Raises:
            ValueError: as :meth:`__call__`, or a name is not among the taps.
        """
        wanted = frozenset(name for name in only if not is_output(name))
        whole = len(wanted) < len(frozenset(only)) or not wanted
        unknown = sorted(wanted - self._taps.keys())
        if unknown:
            raise ValueError(f"these are no taps of this reader: {', '.join(unknown)}; it has {sorted(self._taps)}")
        seen = self._start()
        self._awaited = None if whole else wanted
        activations = {}
        try:
            activations = named(self._outputs(self._run(self._model, images)))
        except _Enough:
            pass
        finally:
            self._seen = self._awaited = None
        return activations | {name: self._activation(name, seen) for name in wanted}

    def close(self) -> None:
        """Remove the hooks; the model is then as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _start(self) -> dict[str, tuple[Tensor, int]]:
        self._seen, self._calls = {}, {}
        return self._seen

    def _hook(self, tap: Tap, module: nn.Module) -> RemovableHandle:
        if tap.entering is None:
            return module.register_forward_hook(partial(self._collect, tap.name))
        return module.register_forward_pre_hook(partial(self._collect_input, tap.name, tap.entering))

    def _collect_input(self, name: str, call: int, module: nn.Module, inputs: tuple[Any, ...]) -> Any:
        """Keep what enters the module; return what shall enter it where that is something else."""
        if self._seen is None:
            return None
        self._calls[name] = self._calls.get(name, 0) + 1
        if self._calls[name] != call + 1:
            return None
        self._keep(name, inputs[0])
        # What is read must outlive what the module does to it in place.
        return (inputs[0].clone(), *inputs[1:]) if getattr(module, "inplace", False) else None

    def _collect(self, name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self._seen is None:
            return
        if name in self._seen:
            raise ValueError(f"the tapped module {name!r} ran twice in this forward pass; tap the module around it")
        if not isinstance(output, Tensor):
            raise ValueError(f"the tapped module {name!r} returned a {type(output).__name__}, not one tensor")
        self._keep(name, output)

    def _keep(self, name: str, tensor: Tensor) -> None:
        assert self._seen is not None
        self._seen[name] = (tensor, _version(tensor))
        if self._awaited is not None and self._awaited <= self._seen.keys():
            raise _Enough

    def _activation(self, name: str, seen: Mapping[str, tuple[Tensor, int]]) -> Tensor:
        if name not in seen:
            raise ValueError(f"the tapped module {name!r} did not run in this forward pass")
        tensor, version = seen[name]
        if _version(tensor) != version:
            raise ValueError(
                f"the output of the tapped module {name!r} was overwritten in place in this forward pass; "
                "tap the module that overwrites it"
            )
        return self._taps[name].read(tensor)


def call(model: nn.Module, images: Tensor) -> Any:
    """Run a model by calling it."""
    return model(images)


def named(outputs: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parts of an output by tap name; a single tensor is the logits."""
    return {OUTPUT: outputs} if isinstance(outputs, Tensor) else dict(outputs)


class _Enough(BaseException):
    """All that was asked for has been seen; not an ``Exception``, so that no model mistakes it for a failure."""


def _version(tensor: Tensor) -> int:
    # Tensors made in inference mode do not count their changes; nor do those that torch.compile traces, where the
    # probe alone refuses what is overwritten in place.
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version
