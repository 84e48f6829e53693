"""Finds the folder of an experiment from what a person typed."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import yaml

from orchestrator.compare.folder import Folder
from orchestrator.compare.records import EXPERIMENT_FILE, RUNS_FILE

MAX_LISTED = 10


def locate(name_or_path: str, *, storage: str) -> Folder:
    """Return the folder of an experiment.

    Args:
        name_or_path: the name of an experiment under ``storage``, a path or URI of its folder, or the YAML file that
            describes it.
        storage: where the experiments lie, a path or URI.

    Raises:
        ValueError: there is none; the message lists the nearest names.
    """
    name = name_or_path
    if name_or_path.endswith((".yaml", ".yml")):
        name = _name_in(Path(name_or_path))
    elif _is_experiment(Folder(name_or_path)):
        return Folder(name_or_path)
    store = Folder(storage)
    if name and _is_experiment(store.child(name)):
        return store.child(name)
    known = [entry for entry in store.names() if _is_experiment(store.child(entry))]
    if not known:
        raise ValueError(f"EXPERIMENT: no experiment called {name!r}; {storage} holds none yet")
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        raise ValueError(
            f"EXPERIMENT: no experiment called {name!r} in {storage}; did you mean {' or '.join(map(repr, near))}?"
        )
    more = f", and {len(known) - MAX_LISTED} more" if len(known) > MAX_LISTED else ""
    raise ValueError(
        f"EXPERIMENT: no experiment called {name!r} in {storage}; it holds {', '.join(known[:MAX_LISTED])}{more}"
    )


def _is_experiment(folder: Folder) -> bool:
    return any(folder.has(file) for file in (EXPERIMENT_FILE, RUNS_FILE))


def _name_in(file: Path) -> str:
    """The experiment's name in a YAML file, else the file's stem; a broken file is not this command's concern."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return file.stem
    name = content.get("name") if isinstance(content, dict) else None
    return str(name) if name else file.stem
