"""Groups and measurements for the suites of the store."""

from __future__ import annotations

from orchestrator.store import Group, Measurement
from orchestrator.store.group import Use

FILE = {
    "data": {"use": "Digits", "split": {"train": 64, "validation": 100, "teacher": "rest"}},
    "teacher": {"model": {"use": "ResNet8", "width": 8}, "train": {"epochs": 1}},
    "student": {"model": {"use": "ResNet8", "width": 8}},
    "paths": {"kd": {"use": "SoftTarget"}, "at": {"use": "AttentionTransfer"}, "nst": {"use": "NSTGram"}},
    "train": {"epochs": 3, "batch_size": 16},
}


def group(*path_sets, epochs=10, views=None, seed=0, has_augmentation=True):
    names = sorted({name for names in path_sets for name in names})
    return Group(
        key=f"seed {seed}",
        shape="one",
        config={"paths": {name: {} for name in names}, "train": {"views": views}},
        uses=tuple(Use(epochs, frozenset(names)) for names in path_sets),
        has_augmentation=has_augmentation,
    )


def measurement(row_bytes, *, ask=1e-3, disk=1e-9, refusals=None, num_rows=1000, columns=None):
    return Measurement(
        num_rows=num_rows,
        num_other_rows=0,
        ask_seconds=ask,
        write_seconds=disk,
        read_seconds=disk,
        row_bytes=row_bytes,
        refusals=refusals or {},
        answer_bytes=40,
        columns=columns or {},
    )
