"""What one forward pass on a sample tells about a model."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from distill.taps.activation import Activation, content, record
from distill.taps.layout import describe
from distill.taps.tap import INPUT, OUTPUT, Tap
from distill.taps.trunk import Trunk


@dataclass(frozen=True, eq=False)
class Probe:
    """The taps of a model and their shapes.

    Attributes:
        taps: every activation that can be tapped, by module name in the order in which the modules end; the logits
            under ``OUTPUT``.
        stages: the tap at the end of each stage, from the highest resolution to the lowest (see ``Trunk.stages``).
        last: the deepest feature: the map that enters global pooling; for models without maps, the vector that enters
            the last layer.
        output_shape: shape of the logits, without the batch.
        classifier: the linear layer whose output is the logits; the model's own object. ``None`` where there is none.
        refused: why the other modules cannot be tapped, by name.
        unactivated: for the taps whose values an activation function made, the tap that reads what entered it; ``None``
            where that function is no module, so that nothing can be hooked.
    """

    taps: Mapping[str, Tap]
    stages: tuple[Tap, ...]
    last: Tap
    output_shape: tuple[int, ...]
    classifier: nn.Linear | None
    refused: Mapping[str, str] = field(default_factory=dict)
    unactivated: Mapping[str, Tap | None] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tap:
        """Return a tap by name.

        Raises:
            ValueError: the model has no such module, or its output cannot be tapped.
        """
        if name in self.taps:
            return self.taps[name]
        if INPUT in name:
            for tap in self.unactivated.values():
                if tap is not None and tap.name == name:
                    return tap
        if name in self.refused:
            raise ValueError(f"module {name!r} cannot be tapped: {self.refused[name]}")
        names = [known for known in self.taps if known != OUTPUT]
        nearest = difflib.get_close_matches(name, names, cutoff=0.5) or [tap.name for tap in self.stages]
        raise ValueError(f"the model has no module {name!r}; nearest names: {', '.join(nearest) or 'none'}")

    def depth(self, name: str) -> tuple[int, int]:
        """Return what is larger the later in the forward pass a tap is read, to compare taps by.

        Modules count by when they end; what enters an activation function comes right before what the function made.
        """
        order = {known: number for number, known in enumerate(self.taps)}
        if name in order:
            return order[name], 1
        entering = [order[made] for made, before in self.unactivated.items() if before and before.name == name]
        return min(entering), 0

    def before_activation(self, name: str) -> Tap:
        """Return the tap with the values of ``name`` before their activation function; ``name`` itself without one.

        Raises:
            ValueError: as :meth:`__getitem__`, or the function is no module, so that nothing can be hooked.
        """
        own = self[name]
        if name not in self.unactivated:
            return own
        before = self.unactivated[name]
        if before is None:
            raise ValueError(
                f"module {name!r} ends in an activation function that is no module, so what enters it cannot be read; "
                "make it an nn.ReLU or the like, or name taps that end before it"
            )
        return before


def probe(model: nn.Module, sample: Tensor, logits: Callable[[Any], Tensor]) -> Probe:
    """Run a model once on a sample and say what can be read out of it.

    The model runs in evaluation mode without gradient, and is left as it was: modes, hooks, weights and buffers. Model
    and sample may both be on the meta device, where nothing is computed and nothing large is allocated.

    An activation cannot be tapped where its module runs more than once or returns no single tensor, or where a later
    operation overwrites it in place: what a path would read is then not what the module returned. In-place dropout
    counts as such an operation although it does nothing in evaluation mode.

    Args:
        model: any module; hooks are put on its submodules for the time of this call.
        sample: ``[batch, channel, height, width]``, a few images of the shape that the model will see; all activations
            are held at once.
        logits: takes the logits ``[batch, class]`` from what the model returns.

    Raises:
        ValueError: the sample is not a batch of images, or the logits are not one tensor, batch first.
    """
    if sample.dim() != 4:
        raise ValueError(f"sample must be [batch, channel, height, width], found {list(sample.shape)}")
    activations, output, refused = record(model, sample, logits)
    if output.dim() < 2 or len(output) != len(sample):
        raise ValueError(f"logits must be [batch, class] for {len(sample)} images, found {list(output.shape)}")
    refused.update({activation.name: activation.refusal for activation in activations if activation.refusal})
    taps = {tap.name: tap for tap in (activation.tap for activation in activations) if tap and tap.name not in refused}
    taps[OUTPUT] = _output_tap(output, sample)
    trunk = Trunk(activations, num_classes=output.shape[1])
    return Probe(
        taps=taps,
        stages=trunk.stages(),
        last=trunk.last() or taps[OUTPUT],
        output_shape=tuple(output.shape[1:]),
        classifier=_classifier(activations, output),
        refused=refused,
        unactivated=_unactivated(activations, taps),
    )


def _unactivated(activations: list[Activation], taps: Mapping[str, Tap]) -> dict[str, Tap | None]:
    """Return, by tap name, what was there before the activation function that made the tap's values."""
    made = {
        activation.name: activation.activated_by
        for activation in activations
        if activation.activated_by is not None and activation.name in taps
    }
    calls: defaultdict[str, set[int]] = defaultdict(set)
    for by in made.values():
        calls[by.module].add(by.call)
    found: dict[str, Tap | None] = {}
    for name, by in made.items():
        number = str(by.call) if len(calls[by.module]) > 1 else ""  # one function that ends several taps
        before = replace(taps[name], name=f"{by.module}{INPUT}{number}", entering=by.call)
        found[name] = before if by.module else None
    return found


def _output_tap(output: Tensor, sample: Tensor) -> Tap:
    tap = describe(OUTPUT, tuple(output.shape), tuple(sample.shape), grid=None)
    return tap or Tap(OUTPUT, output.shape[1], 1, 1, float(sample.shape[2]), "vector")


def _classifier(activations: list[Activation], output: Tensor) -> nn.Linear | None:
    for activation in reversed(activations):
        if isinstance(activation.module, nn.Linear):
            return activation.module if activation.content == content(output) else None
    return None
