"""``key.sub=value`` on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.config.document import Document
from orchestrator.config.errors import Mistake, UserError
from orchestrator.config.reading import read
from orchestrator.config.search import DOMAIN_KINDS
from orchestrator.config.together import NAMES

WHERE = "command line"


def override(document: Document, settings: Sequence[str]) -> Document:
    """Set values from the command line in a file; later ones win.

    A value is read as in the file: ``train.epochs=3``, ``aggregator={use: Equal}``, ``search.seed.grid=[0,1]``; list
    items go by index (``data.augment.0.padding=3``). Whether a key exists is judged with the file, which knows all
    valid ones.

    Args:
        document: the file.
        settings: as typed.

    Raises:
        UserError: a setting has no ``=``, its value is no YAML, or its key leads nowhere; all of them at once.
    """
    mistakes: list[Mistake] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = key.strip()
        if not equals or not key or key.startswith("-"):
            mistakes.append(Mistake(WHERE, "", f"write key=value, such as train.epochs=3; found '{setting}'"))
            continue
        reading = read(text)
        if reading.findings:
            mistakes += [Mistake(WHERE, key, finding.message) for finding in reading.findings]
            continue
        try:
            document = document.with_value(key, reading.data, steps=_search_steps(key))
        except KeyError as error:
            mistakes.append(Mistake(WHERE, key, str(error.args[0])))
    if mistakes:
        raise UserError(mistakes)
    return document


def _search_steps(key: str) -> list[str | int] | None:
    """Divide a key under ``search``, whose names hold dots themselves: a name ends where its domain begins."""
    section, *rest = key.split(".")
    if section != "search" or not rest or rest[0] in NAMES:
        return None
    length = next((number for number, part in enumerate(rest) if part in DOMAIN_KINDS), len(rest))
    name = ".".join(rest[:length])
    inside: list[str | int] = [int(part) if part.isdigit() else part for part in rest[length:]]
    return [section, name, *inside] if name else None
