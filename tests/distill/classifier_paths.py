"""The paths that classifiers have a use for, as the suites see them that run all paths on small classifiers."""

from __future__ import annotations

from distill import paths

OF_OTHER_TASKS = {"BoxOffsets", "FGD", "IFVD", "LD", "RegionLogits"}
"""Paths that need masks, objects or heads of detectors; classifiers are refused by their own messages."""
ON_CLASSIFIERS = sorted(set(paths.__all__) - OF_OTHER_TASKS)
