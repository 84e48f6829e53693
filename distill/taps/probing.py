"""What one forward pass on a sample tells about a model."""

from __future__ import annotations

import difflib
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from distill.objects import Labelled
from distill.taps.activation import Activation, record
from distill.taps.head import Head
from distill.taps.reader import Outputs, Run, call
from distill.taps.tap import INPUT, LEVEL, OUTPUT, Tap, is_output
from distill.taps.trunk import Trunk


@dataclass(frozen=True, eq=False)
class Probe:
    """The taps of a model and their shapes.

    Attributes:
        taps: every activation that can be tapped, by module name in the order in which the modules end; the logits
            under ``OUTPUT``, and whatever else the model's task shows of its output.
        stages: the levels of the pyramid, where the task shows one; else the tap at the end of each stage. From the
            highest resolution to the lowest (see ``Trunk.stages``).
        last: the deepest feature: the coarsest level of a pyramid, or the map that enters global pooling or a dense
            head; for models without maps, the vector that enters the last layer.
        output_shape: shape of the logits, without the batch.
        classifier: the linear layer, or 1x1 convolution, whose output is the logits, but for resizing; the model's own
            object. ``None`` where there is none.
        refused: why the other modules cannot be tapped, by name.
        unactivated: for the taps whose values an activation function made, the tap that reads what entered it; ``None``
            where that function is no module, so that nothing can be hooked.
        output_shapes: shapes of all parts of the output, by tap name, without the batch.
        head: what the task knows of the model's head besides.
        labelled: what the model's task labels with classes.
    """

    taps: Mapping[str, Tap]
    stages: tuple[Tap, ...]
    last: Tap
    output_shape: tuple[int, ...]
    classifier: nn.Linear | nn.Conv2d | None
    refused: Mapping[str, str] = field(default_factory=dict)
    unactivated: Mapping[str, Tap | None] = field(default_factory=dict)
    output_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    head: Head = field(default_factory=Head)
    labelled: Labelled = "images"

    @property
    def is_pyramid(self) -> bool:
        """Whether the stages are the levels of a pyramid, which all lead to the output."""
        return bool(self.stages) and self.stages[0].name.startswith(LEVEL)

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
        names = [known for known in self.taps if not is_output(known) or known.startswith(LEVEL)]
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


def probe(model: nn.Module, sample: Tensor, outputs: Outputs, *, run: Run = call, head: Head | None = None) -> Probe:
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
        outputs: takes the logits, ``[batch, class, ...]``, or several parts, from what the model returns.
        run: runs the model; by default it is called.
        head: what the task knows of the model's head besides.

    Raises:
        ValueError: the sample is not a batch of images, or the logits are not one tensor, batch first.
    """
    if sample.dim() != 4:
        raise ValueError(f"sample must be [batch, channel, height, width], found {list(sample.shape)}")
    activations, parts, scores, refused = record(model, sample, outputs, run)
    output = parts[OUTPUT]
    if output.dim() < 2 or len(output) != len(sample):
        raise ValueError(f"logits must be [batch, class] for {len(sample)} images, found {list(output.shape)}")
    refused.update({activation.name: activation.refusal for activation in activations if activation.refusal})
    taps = {tap.name: tap for tap in (activation.tap for activation in activations) if tap and tap.name not in refused}
    ordered = sorted(parts, key=lambda name: (name == OUTPUT, not name.startswith(LEVEL)))
    taps |= {name: _output_tap(name, parts[name], sample) for name in ordered}
    levels = tuple(taps[name] for name in ordered if name.startswith(LEVEL))
    in_backbone = _in_backbone(model, activations)
    trunk = Trunk(in_backbone or activations, num_classes=0 if in_backbone else output.shape[1])
    return Probe(
        taps=taps,
        stages=levels or trunk.stages(),
        last=levels[-1] if levels else trunk.last() or taps[OUTPUT],
        output_shape=tuple(output.shape[1:]),
        classifier=_classifier(activations, scores),
        refused=refused,
        unactivated=_unactivated(activations, taps),
        output_shapes={name: tuple(part.shape[1:]) for name, part in parts.items()},
        head=head or Head(),
    )


def _in_backbone(model: nn.Module, activations: list[Activation]) -> list[Activation]:
    """Return what runs in the model's ``backbone``, where it has a module of that name, as torchvision's dense ones do.

    What follows it are heads, which end no stage.
    """
    if not isinstance(getattr(model, "backbone", None), nn.Module):
        return []
    return [activation for activation in activations if activation.name.startswith("backbone.")]


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


def _output_tap(name: str, part: Tensor, sample: Tensor) -> Tap:
    """Describe a part of the output: a vector, a map, or places in a row behind the channels."""
    rows = float(sample.shape[2])
    if part.dim() == 4:
        return Tap(name, part.shape[1], part.shape[2], part.shape[3], rows / part.shape[2], "output")
    if part.dim() == 2:
        return Tap(name, part.shape[1], 1, 1, rows, "vector")
    return Tap(name, part.shape[1], math.prod(part.shape[2:]), 1, rows, "output")


def _classifier(activations: list[Activation], scores: int) -> nn.Linear | nn.Conv2d | None:
    for activation in reversed(activations):
        module = activation.module
        if activation.content == scores and isinstance(module, nn.Linear | nn.Conv2d):
            return module if isinstance(module, nn.Linear) or module.kernel_size == (1, 1) else None
    return None
