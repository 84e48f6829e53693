"""The families of detectors that the Detection task can run; another one is a file here and a line in ``FAMILIES``."""

from __future__ import annotations

from torch import nn

from distill.late import models
from distill.tasks.detectors.base import DetectorFamily
from distill.tasks.detectors.distribution_fcos import DistributionFCOSFamily
from distill.tasks.detectors.faster_rcnn import FasterRCNNFamily
from distill.tasks.detectors.fcos import FCOSFamily
from distill.tasks.detectors.output import BOXES, DetectorOutput
from distill.tasks.detectors.own_detector import OwnDetector, OwnFamily
from distill.tasks.detectors.retinanet import RetinaNetFamily
from distill.tasks.detectors.ssd import SSDFamily

FAMILIES: tuple[DetectorFamily, ...] = (
    RetinaNetFamily(),
    DistributionFCOSFamily(),
    FCOSFamily(),
    SSDFamily(),
    FasterRCNNFamily(),
    OwnFamily(),
)
"""The first that fits a model drives it: a family whose models subclass another's stands before that one."""

__all__ = ["BOXES", "FAMILIES", "DetectorFamily", "DetectorOutput", "OwnDetector", "family_of", "is_detector"]


def family_of(model: nn.Module) -> DetectorFamily:
    """Return the family of a detector.

    Raises:
        ValueError: it is of none, or it says more of an object than its box.
    """
    detection = models.detection
    if isinstance(model, detection.MaskRCNN | detection.KeypointRCNN):
        raise ValueError(
            f"masks and keypoints are not learned here, which {type(model).__name__} finds; use its FasterRCNN"
        )
    for family in FAMILIES:
        if family.fits(model):
            return family
    raise ValueError(
        f"a detector must be a RetinaNet, FCOS, SSD, SSDLite or FasterRCNN of torchvision's classes, or subclass "
        f"distill.tasks.detectors.OwnDetector, found {type(model).__name__}"
    )


def is_detector(model: nn.Module) -> bool:
    """Whether some family has models of this kind; one that also finds masks or keypoints is a detector, too."""
    return any(family.fits(model) for family in FAMILIES)
