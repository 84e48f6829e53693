"""An experiment file, read and resolved: its sections, the plain data that they amount to, and their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from distill.schema import REQUIRED
from orchestrator.config.document import Document
from orchestrator.config.labels import flat
from orchestrator.config.search import Search
from orchestrator.config.sections import ModelSection, RunOptions, Spec, TeacherSection, TrainOptions, at_least

OPERATIONAL = ("storage", "tracking_uri", "max_concurrent", "max_failures", "num_arms", "store_gib")
"""Keys of ``run`` that leave every result as it is; they may change between an attempt and its ``--resume``."""

LATER: Mapping[str, Mapping[str, Any]] = {
    "train": {"views": None, "compile": False, "diagnose": None},
    "student": {"weights_backbone": None},
    "teacher": {"weights_backbone": None},
}
"""Keys of sections that came later, with their defaults: they count where they differ, so that results keep their
hash."""

ROUNDED = "float16"
"""The way to store targets that rounds them; the others leave every result as it is."""

DEFAULT_TASK: Mapping[str, Any] = {"use": "Classification"}
DEFAULT_AGGREGATOR: Mapping[str, Any] = {"use": "Equal"}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All sections of a file, with their defaults.

    Attributes:
        document: the file, for messages that name its lines.
        name: of the experiment, its folder and its runs; default: the file's name.
        seed: of a run's initial weights and everything drawn in it.
        data_seed: of the order of the data and their augmentation; ``None``: follows ``seed``.
        modules: modules of the user's own whose classes and functions the file names.
        task: what is to be learned.
        data: the data set.
        student: the model to train.
        teacher: the model to learn from.
        paths: the roads from one to the other, by the name that metrics give them.
        aggregator: how the losses of the paths become one.
        train: how the student is trained.
        store: whether the teacher's targets are kept on disk: ``exact`` to the last bit, in ``float16``, ``off``, or
            ``auto``: to the last bit, for the paths for which reading is cheaper than asking again.
        search: what a sweep varies; ``None``: this is one run.
        run: where and how runs are executed.
    """

    document: Document = field(repr=False, compare=False)
    data: Spec
    student: ModelSection
    train: TrainOptions
    name: str = ""
    seed: Annotated[int, at_least(0)] = 0
    data_seed: Annotated[int, at_least(0)] | None = None
    modules: tuple[str, ...] = ()
    task: Spec = field(default_factory=lambda: dict(DEFAULT_TASK))
    teacher: TeacherSection | None = None
    paths: Mapping[str, Spec] = field(default_factory=dict)
    aggregator: Spec = field(default_factory=lambda: dict(DEFAULT_AGGREGATOR))
    store: Literal["auto", "exact", "float16", "off"] = "auto"
    search: Search | None = None
    run: RunOptions = field(default_factory=RunOptions)

    @property
    def config(self) -> dict[str, Any]:
        """The resolved file as plain data; a run's, where ``search`` is ``None``."""
        data_seed = self.seed if self.data_seed is None and self.search is None else self.data_seed
        resolved = {
            "name": self.name,
            "seed": self.seed,
            "data_seed": data_seed,
            "modules": list(self.modules),
            "task": self.task,
            "data": self.data,
            "teacher": None if self.teacher is None else asdict(self.teacher),
            "student": asdict(self.student),
            "paths": self.paths,
            "aggregator": self.aggregator,
            "train": asdict(self.train),
            "store": self.store,
            "search": None if self.search is None else self.search.written,
            "run": asdict(self.run),
        }
        plain: dict[str, Any] = json.loads(json.dumps(resolved, allow_nan=False))
        if self.search is None:
            del plain["search"]
        return plain

    @property
    def config_hash(self) -> str:
        """:func:`config_hash` of :attr:`config`."""
        return config_hash(self.config)


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 16 hex digits that identify a configuration: the SHA-256 of its canonical JSON.

    The name, and the keys of ``run`` and ``store`` that leave results as they are, do not count.
    """
    return hashlib.sha256(canonical_json(_identity(config)).encode()).hexdigest()[:16]


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and without spaces: equal data, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def differing_keys(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys in which two configurations differ, each with both values; ``None`` where one is absent.

    It is empty exactly where :func:`config_hash` agrees.
    """
    one, other = flat(_identity(first)), flat(_identity(second))
    keys = sorted(
        key for key in one.keys() | other.keys() if canonical_json(_item(one, key)) != canonical_json(_item(other, key))
    )
    return {key: (one.get(key), other.get(key)) for key in keys}


def _item(values: Mapping[str, Any], key: str) -> list[Any]:
    """Return the value in a list, and an empty list for an absent key, which is not the same as ``null``."""
    return [values[key]] if key in values else []


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    identity = {key: value for key, value in config.items() if key not in ("name", "store")}
    if config.get("store") == ROUNDED:
        identity["store"] = ROUNDED
    for section, later in LATER.items():
        if identity.get(section) is not None:
            given = {key: value for key, value in config[section].items() if later.get(key, REQUIRED) != value}
            identity[section] = given
    if "run" in identity:
        identity["run"] = {key: value for key, value in config["run"].items() if key not in OPERATIONAL}
    return identity
