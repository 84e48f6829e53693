"""What crosses Ray between a run and its driver: our own words in one string that Ray neither flattens nor adds to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

REPORT = "distillery_report"
REASON = "distillery_reason"
RESULT = "distillery_result"


def pack_report(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Wrap one epoch's metrics for ``ray.tune.report`` or ``ray.train.report``."""
    return {REPORT: json.dumps(dict(metrics))}


def pack_reason(reason: str) -> dict[str, str]:
    """Wrap why an attempt is about to fail."""
    return {REASON: reason}


def pack_result(result: Mapping[str, Any]) -> dict[str, str]:
    """Wrap the result of a run, the last thing that a trial hands over."""
    return {RESULT: json.dumps(dict(result))}


def report_in(message: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the metrics in what Ray delivers, or None where it holds none."""
    return json.loads(message[REPORT]) if REPORT in message else None


def reason_in(message: Mapping[str, Any]) -> str | None:
    """Return the reason in what Ray delivers, or None where it holds none."""
    return message.get(REASON)


def result_in(message: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the result in what Ray delivers, or None where it holds none."""
    return json.loads(message[RESULT]) if RESULT in message else None
