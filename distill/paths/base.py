"""The contract of a path: one road by which knowledge reaches the student."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from distill.adapter import Adapter
from distill.batch import Batch, Samples
from distill.identity import describe
from distill.objects import Labelled
from distill.paths.answers import pair_answers, share_kind
from distill.paths.schedule import ALWAYS, Schedule
from distill.paths.tap_choice import TapChoice, names_pairs
from distill.taps import OUTPUT, Probe, TapPair, pair_before_activation, pair_last, pair_named, pair_stages

Taps = Mapping[str, Tensor]
"""Activations by tap name: feature maps ``[batch, channel, height, width]``; the logits under ``OUTPUT``."""

Target = dict[str, Tensor]
"""What a path needs of the teacher, by layer; the first dimension of each tensor is the sample."""


class Path(nn.Module, ABC):
    """One road by which knowledge flows from the teacher to the student.

    The life of a path: constructed from options alone; :meth:`connect` once both models are known (adapters are
    built here, before the optimiser and DDP exist); then each step :meth:`advance`, :meth:`target`, without gradient
    and from teacher taps alone, and :meth:`forward`, which returns one scalar loss a layer. The loss of the path is
    their sum.
    """

    non_negative: ClassVar[bool] = True
    """Whether no loss of this path can be below zero; aggregators that take logarithms refuse it otherwise."""
    batch_dependent: ClassVar[bool] = False
    """Whether the loss of a sample depends on the other samples of its batch, by more than BatchNorm's statistics."""
    storable: ClassVar[bool] = True
    """Whether the target is a function of teacher, image and view alone, sample by sample."""

    target_options: ClassVar[tuple[str, ...] | None] = None
    """The attributes on which the target depends, where they are not all of them. A class that says so answers for the
    classes below it, as long as these do not compute a target of their own."""

    needs_samples: ClassVar[bool] = False
    """Whether the path has to know, before the training, which samples it will see; see :meth:`meet`."""

    needs_labels: ClassVar[tuple[Labelled, ...]] = ()
    """What may be labelled with classes, where the path reads ``Batch.labels``; empty where it does not."""

    schedule: Schedule = ALWAYS
    """When the path takes part; a file's ``schedule: {start: ..., warm_up: ..., end: ...}`` beside the options."""
    pairs: tuple[TapPair, ...] = ()
    """Which student tap learns from which teacher tap; set by :meth:`connect`."""

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the path's losses and of its target's tensors; one a pair, unless a path says otherwise."""
        return tuple(pair.layer for pair in self.pairs)

    def pairs_of(self, layer: str) -> tuple[TapPair, ...]:
        """Return the pairs whose taps a layer's loss reads: the one of its name, unless a path says otherwise."""
        return tuple(pair for pair in self.pairs if pair.layer == layer) or self.pairs

    def connect(self, student: Probe, teacher: Probe) -> None:
        """Choose the taps and build what depends on their shapes.

        Raises:
            ValueError: a tap does not exist, its shape cannot meet its partner's, or labels are not those of
                :attr:`needs_labels`.
        """
        if self.needs_labels and student.labelled not in self.needs_labels:
            name, kinds = type(self).__name__, " or ".join(self.needs_labels)
            raise ValueError(f"{name} reads the classes of {kinds}, but in this task {student.labelled} have them")
        self.pairs = self.choose_pairs(student, teacher)
        self.build(student, teacher)

    def target_identity(self) -> dict[str, Any]:
        """Return plain data that tells the function :meth:`target` from any other one: class, code and options.

        Raises:
            UnidentifiedError: an option is of a kind whose meaning cannot be told.
        """
        for kind in type(self).__mro__:
            own = vars(kind)
            if own.get("target_options") is not None:
                return describe(self, own["target_options"], kind=kind)
            if "target" in own or "layer_target" in own:
                break
        return describe(self)

    @abstractmethod
    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Return the tap pairs that this path reads."""

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build adapters and buffers from the shapes at ``self.pairs``; most paths need none."""

    def meet(self, samples: Samples) -> None:
        """Get to know the samples of the training, after :meth:`connect`; only where :attr:`needs_samples` says so."""

    def advance(self, progress: float) -> None:
        """Hear how far the training is, from 0 to 1, before a step; for the paths that compute other things by phases.

        What follows the progress smoothly reads ``Batch.progress`` in :meth:`forward` instead, which costs a compiled
        step no new tracing.
        """

    @abstractmethod
    def target(self, taps: Taps) -> Target:
        """Compute, a sample at a time and without gradient, what the path needs of the teacher.

        Args:
            taps: the teacher's activations, by teacher tap name.

        Returns:
            One tensor a layer, ``[batch, ...]``, at the teacher's resolution.
        """

    @abstractmethod
    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Compute one scalar loss a layer, by layer name.

        Args:
            taps: the student's activations, by student tap name.
            target: what :meth:`target` returned for the same samples.
            batch: labels, sample indices and the training's progress, for the paths that need them.
        """


class LogitPath(Path):
    """A path between the logits of both models: one layer, named ``logits``.

    An image may have one answer, ``[class]``, or one at each of many places, ``[class, height, width]`` or ``[class,
    place]``. Losses are computed in float32 (or float64), whatever precision the models run in.
    """

    takes_independent: ClassVar[bool] = False
    """Whether each class may have a probability of its own (sigmoid), rather than a share of one (softmax)."""
    takes_places: ClassVar[bool] = True
    """Whether an image may have answers at many places."""
    target_options = ()
    independent: bool = False
    """Whether each class has a probability of its own; set by :meth:`connect`."""

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the outputs.

        Raises:
            ValueError: the answers of both models differ in shape or kind, or are none that this path takes.
        """
        name = type(self).__name__
        pairs = pair_answers(name, student, teacher)
        self.independent = share_kind(name, student, teacher, self.takes_independent, self.takes_places)
        return pairs

    def target(self, taps: Taps) -> Target:
        """Return the teacher's logits, ``[batch, class, ...]``."""
        return {"logits": widen(taps[OUTPUT].detach())}

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the loss under the one layer name ``logits``."""
        student = widen(taps[OUTPUT])
        with no_autocast(student):
            return {"logits": self.loss(student, widen(target["logits"]), batch)}

    @abstractmethod
    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        """Compute the scalar loss from both logits, ``[batch, class, ...]``."""


class FeaturePath(Path):
    """A path between feature maps, stage by stage; the layers are named after the student's taps.

    Adapters and losses are computed in float32 (or float64), whatever precision the models run in.

    Where both models show a pyramid, as detectors do, its levels are what ``auto`` pairs, by stride, whatever families
    the models are of: all of them, also in paths that otherwise read the deepest features (:attr:`only_last`), since
    objects of each size are found on a level of their own. Paths that compare images as a whole (:attr:`one_level`)
    read the coarsest level alone.

    Args:
        taps: ``auto`` pairs both models stage by stage (some paths: their deepest features); a list of
            ``{student: NAME, teacher: NAME}`` names modules, or levels of a pyramid: ``:level0`` is the finest.

    Raises:
        ValueError: ``taps`` is neither.
    """

    before_activation: ClassVar[bool] = False
    """Whether the path reads what enters the activation function at the end of a tap."""
    only_last: ClassVar[bool] = False
    """Whether ``auto`` means the deepest features alone."""
    one_level: ClassVar[bool] = False
    """Whether that holds for the levels of a pyramid too: the path looks at an image as a whole."""

    def __init__(self, taps: TapChoice = "auto") -> None:
        super().__init__()
        if taps != "auto" and not names_pairs(taps):
            raise ValueError(f"taps must be 'auto' or a list of {{student: NAME, teacher: NAME}}, found {taps!r}")
        self.taps = taps

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair by stage, or as the option ``taps`` says."""
        pairs = self.auto_pairs(student, teacher) if self.taps == "auto" else pair_named(student, teacher, self.taps)
        return pair_before_activation(pairs, student, teacher) if self.before_activation else pairs

    def auto_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Return the pairs that ``auto`` means: all stages or levels, the deepest features, or the coarsest level."""
        is_pyramid = student.is_pyramid and teacher.is_pyramid
        last_alone = self.one_level if is_pyramid else self.only_last
        return pair_last(student, teacher) if last_alone else pair_stages(student, teacher)

    def target(self, taps: Taps) -> Target:
        """Return :meth:`layer_target` of every teacher tap."""
        targets = {}
        for pair in self.pairs:
            teacher = widen(taps[pair.teacher].detach())
            with no_autocast(teacher):
                targets[pair.layer] = self.layer_target(pair.layer, teacher)
        return targets

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return :meth:`layer_loss` of every pair."""
        losses = {}
        for pair in self.pairs:
            student = widen(taps[pair.student])
            with no_autocast(student):
                losses[pair.layer] = self.layer_loss(pair.layer, student, widen(target[pair.layer]))
        return losses

    @abstractmethod
    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        """Compute one layer's target from the teacher's map ``[batch, channel, height, width]``, at least float32."""

    @abstractmethod
    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Compute one layer's scalar loss from the student's map and the stored target, both at least float32."""


class AdaptedFeaturePath(FeaturePath):
    """A feature path whose student maps first pass an adapter to the teacher's width (1x1 convolution + BatchNorm)."""

    adapters: nn.ModuleDict

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build one adapter a pair; it is used even where the widths agree, as in the paper's code."""
        self.adapters = nn.ModuleDict(
            {
                key(pair.layer): Adapter(student[pair.student].channels, teacher[pair.teacher].channels)
                for pair in self.pairs
            }
        )

    def adapter(self, layer: str) -> Adapter:
        """Return the adapter that brings a layer's student map to the teacher's number of channels."""
        return cast(Adapter, self.adapters[key(layer)])

    def adapt(self, layer: str, student: Tensor) -> Tensor:
        """Bring a student map to the teacher's number of channels; for less than the map ask the :meth:`adapter`."""
        adapted: Tensor = self.adapter(layer)(student)
        return adapted


def key(layer: str) -> str:
    """Return a layer's name as a legal submodule name, a different one for every layer.

    The slashes keep it apart from Python attributes: ``ModuleDict`` refuses ``values`` or ``type`` as a key.
    """
    return "tap/" + layer.replace(".", "/")


def widen(tensor: Tensor) -> Tensor:
    """Return ``tensor`` in float32 where it is narrower; float64 stays."""
    return tensor if tensor.dtype == torch.float32 else tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def no_autocast(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a context without autocast on the device of ``tensor``: bfloat16 has 3 digits, too few for a loss."""
    kind = tensor.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()


__all__ = [
    "AdaptedFeaturePath",
    "FeaturePath",
    "LogitPath",
    "Path",
    "TapChoice",
    "Taps",
    "Target",
    "key",
    "no_autocast",
    "widen",
]
