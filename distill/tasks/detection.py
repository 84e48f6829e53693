"""Object detection: the losses of the detector itself; average precision as COCO defines it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from distill.batch import Batch
from distill.data.annotation import Boxes
from distill.late import ops
from distill.objects import Labels, Objects
from distill.taps import Probe, probe
from distill.tasks.base import Task
from distill.tasks.detection_metrics import DetectionMetrics
from distill.tasks.detectors import DetectorOutput, family_of
from distill.tasks.drawing import Drawing, draw_boxes

SHOWN_SCORE = 0.3
SHOWN_BOXES = 20
SHOWN_OVERLAP = 0.5


class Detection(Task):
    """Where the objects of an image are, and of which class each is.

    The loss is the sum of those that the model itself is trained with, in float32; with several workers, of a worker's
    share. What is distilled are the class logits ``[batch, class, location]``, the box offsets ``:boxes``
    ``[batch, 4, location]`` and the maps that enter the heads, ``:level0``, ``:level1``, ..., before boxes are chosen
    and duplicates left out. A location is an anchor at a place of a level: detectors of one family with the same
    anchors agree in shape on the same images. FCOS adds ``:centerness`` ``[batch, 1, location]``, and DistributionFCOS
    ``:box_distribution`` ``[batch, 4 * bins, location]``. Faster R-CNN's logits
    are those of its proposal network, of one class; its second stage is ``Probe.head.regions``.

    Models are RetinaNet, FCOS, SSD, SSDLite and Faster R-CNN, all of torchvision's classes whatever made them, and
    whoever subclasses :class:`~distill.tasks.detectors.OwnDetector`. Images come resized and normalised: a model's own
    ``transform`` is left out, in training and in evaluation. So weights that were trained on images normalised in
    another way need the data's ``mean`` and ``std`` to be theirs: torchvision's of SSD300 have (0.48235, 0.45882,
    0.40784) and 1/255, those of SSDLite 0.5 and 0.5. Classes are counted with the background, class 0.
    """

    metric = "map"
    metrics_known = ("map", "map_50", "map_75", "loss")
    annotation = Boxes
    draws = True
    compares_answers = False
    compiles = False  # matching and choice of boxes depend on their number: dozens of graphs, a new one for each number

    def run(self, model: nn.Module, images: Tensor) -> DetectorOutput:
        """Run a detector up to its heads.

        Raises:
            ValueError: the model is of no family that is known.
        """
        return family_of(model).run(model, images)

    def outputs(self, output: DetectorOutput) -> dict[str, Tensor]:
        return dict(output.parts)

    def loss(self, output: DetectorOutput, batch: Batch) -> Tensor:
        """Return the sum of the model's own losses."""
        losses = family_of(output.model).losses(output, batch.objects.trained())
        return torch.stack(list(losses.values())).sum()

    def detections(self, output: DetectorOutput) -> list[dict[str, Tensor]]:
        """Return image by image ``boxes`` ``[object, 4]``, ``scores`` and ``labels`` of what was found."""
        return family_of(output.model).detections(output)

    def exported(self, model: nn.Module) -> None:
        """Return nothing: how many boxes there are depends on the image, which no traced graph allows."""

    def draw_labels(self, images: Sequence[Tensor], labels: Labels, classes: Sequence[str]) -> Drawing:
        """Draw the known boxes, without those that do not count."""
        assert isinstance(labels, Objects)
        known = labels.trained()
        return draw_boxes(images, [each["boxes"] for each in known], [each["labels"] for each in known], classes)

    def draw_output(self, images: Sequence[Tensor], output: DetectorOutput, classes: Sequence[str]) -> Drawing:
        """Draw what was found with a score of at least ``SHOWN_SCORE``, at most ``SHOWN_BOXES`` an image.

        Of boxes that overlap by more than ``SHOWN_OVERLAP`` the surest is drawn, whatever their classes.
        """
        found = [_surest(each) for each in self.detections(output)]
        boxes, labels, scores = ([each[name] for each in found] for name in ("boxes", "labels", "scores"))
        return draw_boxes(images, boxes, labels, classes, scores=scores)

    def metrics(self, classes: Sequence[str], device: torch.device) -> DetectionMetrics:
        return DetectionMetrics(classes)

    def probe(self, model: nn.Module, sample: Tensor) -> Probe:
        """Run a model once on a sample; the second stage's anchors are those of images of this size."""
        outputs: list[DetectorOutput] = []

        def run(model: nn.Module, images: Tensor) -> DetectorOutput:
            outputs.append(self.run(model, images))
            return outputs[-1]

        found = probe(model, sample, self.outputs, run=run)
        return replace(found, head=family_of(model).head(outputs[-1]), labelled=Boxes.labelled)

    def misfit(self, found: Probe, num_classes: int) -> str:
        regions = found.head.regions
        told = found.output_shape[0] if regions is None else regions.num_classes
        if told == num_classes:
            return ""
        return f"tells {told} classes apart, background included, but the data have {num_classes}"


def _surest(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what is shown of an image's ``boxes``, ``labels`` and ``scores``, the best first."""
    order = ops.nms(found["boxes"], found["scores"], SHOWN_OVERLAP)[:SHOWN_BOXES]
    order = order[found["scores"][order] >= SHOWN_SCORE]
    return {name: found[name][order] for name in ("boxes", "labels", "scores")}
