"""What runs in processes of its own: writers of a store, some of which are killed."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import torch
from target_scene import Scene

from distill.identity import state_digest
from distill.targets import LocalShards, StoredTargets, TargetStore, path_column
from distill.targets.shard import encode


def server():
    """Return what forks processes that have imported everything; a fork of this one would inherit torch's threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distill.targets", "distill.models", "pandas"])  # pyarrow looks for the last one
    return context


def fill_once(root, source, barrier):
    """Fill a view as soon as the others do."""
    scene = Scene(LocalShards(root), source)
    teacher = scene.teacher()
    stored = StoredTargets(TargetStore(scene.shards, state_digest(teacher.model)), teacher, "data")
    distiller = scene.distiller(teacher)
    columns = [path_column(name, distiller.path(name)) for name in ("AttentionTransfer", "SoftTarget")]
    barrier.wait()
    assert stored.open(columns, scene.loader(), 0, precision="float32") is not None


def write_for_ever(root, begun):
    """Write shards until killed."""
    shards = LocalShards(Path(root))
    begun.set()
    number = 0
    while True:
        shards.put("t/c", f"{'0' * 32}.{number:05d}-of-{number + 1:05d}", encode([torch.randn(50, 100)], {"n": number}))
        number += 1
