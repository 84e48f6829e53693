"""The names of metrics as people read them, and which metrics are shares in percent."""

from __future__ import annotations

from collections.abc import Mapping

WORDS: Mapping[str, str] = {"miou": "mIoU", "map": "mAP", "map_50": "mAP at IoU 0.5", "map_75": "mAP at IoU 0.75"}
"""What the field calls a metric, where that is not its name with spaces."""

OF_ONE_CLASS: Mapping[str, str] = {"iou": "IoU", "ap": "AP"}
"""What the field calls a metric of one class, such as ``iou/road``: IoU of road."""

ERRORS = ("loss", "calibration_error")
"""Of these metrics less is better, and their differences are not called points; all others are shares in percent."""

UNNAMED = "accuracy"
"""The metric that goes without saying: its values are shown in percent and not named."""


def in_words(name: str) -> str:
    """Return a metric in words, such as ``pixel accuracy`` or ``IoU of road``."""
    kind, of_one_class, label = name.partition("/")
    if of_one_class:
        return f"{OF_ONE_CLASS.get(kind, kind)} of {label}"
    return WORDS.get(name, name.replace("_", " "))


def is_share(name: str) -> bool:
    """Whether a metric is a share in percent, so that its differences are points."""
    return name not in ERRORS


def is_better_small(name: str) -> bool:
    """Whether less of a metric is better."""
    return name in ERRORS


def is_of_one_class(name: str) -> bool:
    """Whether a metric is about one class only, such as ``iou/road``: too many to be printed."""
    return "/" in name


def measured(split: str, name: str, value: float) -> str:
    """Return a value in words, such as ``validation 84.13 %``, ``validation mIoU 45.20 %``, ``test loss 0.5312``."""
    number = f"{value:.2f} %" if is_share(name) else f"{value:.4g}"
    return " ".join([split, *([] if name == UNNAMED else [in_words(name)]), number])
