"""The target store: what the teacher says of an image, asked once and kept on disk for every run."""

from distill.targets.column import Column, answer_column, path_column
from distill.targets.mapped import MappedTargets
from distill.targets.numerics import Numerics
from distill.targets.shards import LocalShards, RemoteShards, Shards, open_shards
from distill.targets.source import TargetSource
from distill.targets.store import StorePrecision, TargetStore
from distill.targets.stored import StoredTargets
from distill.targets.view import View

__all__ = [
    "Column",
    "LocalShards",
    "MappedTargets",
    "Numerics",
    "RemoteShards",
    "Shards",
    "StorePrecision",
    "StoredTargets",
    "TargetSource",
    "TargetStore",
    "View",
    "answer_column",
    "open_shards",
    "path_column",
]
