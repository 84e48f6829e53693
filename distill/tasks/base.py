"""The contract of a task: how models run, the supervised loss, what is distilled of an output, and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.data.annotation import Annotation
from distill.objects import Labels
from distill.taps import OUTPUT, Head, Probe, Tap, TapReader, probe
from distill.tasks.detectors import is_detector
from distill.tasks.drawing import Drawing
from distill.tasks.logits_model import LogitsModel


class Metrics(ABC):
    """Running metrics of one pass over a split; exact on any number of workers."""

    @abstractmethod
    def update(self, output: Any, batch: Batch, teacher: Tensor | None) -> None:
        """Take in one batch.

        Args:
            output: what running the student returned, in evaluation mode.
            batch: the samples.
            teacher: the teacher's :meth:`Task.answer` for the same samples, where there is one.
        """

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return all metrics over every rank's samples; names without prefix, shares in percent."""


class Task(ABC):
    """What is to be learned. Nothing outside asks which task it is: whatever differs between tasks, a task answers."""

    metric: ClassVar[str]
    """The metric that ranks runs where a file names none."""
    metrics_known: ClassVar[tuple[str, ...]]
    """The metrics of a split that can rank runs, ``loss`` among them."""
    smaller_is_better: ClassVar[frozenset[str]] = frozenset({"loss"})
    """Those of them of which less is better."""
    eval_batch_size: ClassVar[int] = 16
    """Images that a worker evaluates at once where a file does not say: answers for each place are large."""
    annotation: ClassVar[type[Annotation] | None] = None
    """What has to annotate the images; ``None``: a class each."""

    compares_answers: ClassVar[bool] = True
    """Whether a student's agreement with its teacher is measured; see :meth:`answer`."""

    compiles: ClassVar[bool] = True
    """Whether ``torch.compile`` makes one graph of a model's run and its loss."""

    draws: ClassVar[bool] = False
    """Whether there is something to see on an image; see :meth:`draw_labels`."""

    def run(self, model: nn.Module, images: Tensor) -> Any:
        """Run a model on images ``[batch, channel, height, width]``; by default it is called."""
        return model(images)

    @abstractmethod
    def outputs(self, output: Any) -> dict[str, Tensor]:
        """Return the parts of what running a model returned that can be distilled, by tap name.

        The logits ``[batch, class, ...]`` stand under ``OUTPUT``. The names of the others begin with a colon; those of
        a pyramid's maps, ``[batch, channel, height, width]``, are ``:level0``, ``:level1``, ..., the finest first. The
        loss has to be computed from these very tensors, so that gradients can be taken at them.
        """

    @abstractmethod
    def loss(self, output: Any, batch: Batch) -> Tensor:
        """Return the scalar supervised loss of what running the model returned (mean over the batch)."""

    @abstractmethod
    def metrics(self, classes: Sequence[str], device: torch.device) -> Metrics:
        """Return fresh metrics.

        Args:
            classes: names of the data's classes, by label.
            device: where the outputs are.
        """

    def answer(self, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return what a student's agreement with its teacher is measured by, ``[batch, ...]``; ``None``: nothing is.

        Args:
            outputs: as :meth:`outputs` returns them.
        """
        return None

    def exported(self, model: nn.Module) -> nn.Module | None:
        """Return what a trained model becomes for others: images in, one tensor out; by default its logits.

        ``torch.export`` has to be able to trace it at any batch size. ``None``: it is not exported.
        """
        return LogitsModel(model, self.run, self.logits)

    def draw_labels(self, images: Sequence[Tensor], labels: Labels, classes: Sequence[str]) -> Drawing:
        """Draw what is known of images on them; asked only where the task :attr:`draws`.

        Args:
            images: ``[channel, height, width]`` each, uint8.
            labels: of these images, as ``Batch.labels`` has them.
            classes: names of the data's classes, by label.
        """
        raise NotImplementedError(f"{type(self).__name__} draws nothing")

    def draw_output(self, images: Sequence[Tensor], output: Any, classes: Sequence[str]) -> Drawing:
        """Draw on images what running a model on them in evaluation mode found; as :meth:`draw_labels`."""
        raise NotImplementedError(f"{type(self).__name__} draws nothing")

    def head(self, model: nn.Module) -> Head:
        """Return what is known of a model's head besides its outputs.

        Raises:
            ValueError: the task cannot run such a model.
        """
        return Head()

    def misfit(self, found: Probe, num_classes: int) -> str:
        """Return why a model does not fit data of this number of classes; empty where it does."""
        shape = found.output_shape
        if shape[0] == num_classes:
            return ""
        return f"gives {list(shape)} logits an image, but the data have {num_classes} classes"

    def check_classes(self, num_classes: int) -> None:  # noqa: B027 -- most tasks have no such option
        """Refuse options that do not fit data of this number of classes.

        Raises:
            ValueError: one does not.
        """

    def unranked(self, metric: str, num_classes: int) -> str:
        """Return why one of the known metrics says nothing with so many classes; empty where it can rank runs."""
        return ""

    def logits(self, output: Any) -> Tensor:
        """Return the logits of what running a model returned, ``[batch, class, ...]``."""
        return self.outputs(output)[OUTPUT]

    def probe(self, model: nn.Module, sample: Tensor) -> Probe:
        """Run a model once on a sample and say what can be read out of it; see :func:`distill.taps.probe`."""
        try:
            found = probe(model, sample, self.outputs, run=self.run, head=self.head(model))
        except (RuntimeError, ValueError) as error:
            if is_detector(model):  # which may fail anywhere on its way to boxes
                raise ValueError(
                    f"must give logits for {type(self).__name__}, found {type(model).__name__}, a detector, which task "
                    "Detection trains"
                ) from error
            raise
        return replace(found, labelled="images" if self.annotation is None else self.annotation.labelled)

    def reader(self, model: nn.Module, taps: Iterable[Tap]) -> TapReader:
        """Return what reads taps out of a model."""
        return TapReader(model, taps, self.outputs, self.run)
