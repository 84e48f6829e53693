"""Writes a comparison into a folder."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.compare.comparison import Comparison

PREDICTIONS = "predictions.png"
"""What teacher and students find on a few images; drawn at the end of a sweep, where the weights are."""


def write(comparison: Comparison, destination: Path) -> dict[str, Path]:
    """Write report, pictures, table and numbers; see :meth:`Comparison.write`."""
    # Imported late: drawing costs a second that the table does not need.
    from orchestrator.compare import pictures
    from orchestrator.compare.report import page

    destination.mkdir(parents=True, exist_ok=True)
    predictions = destination / PREDICTIONS
    drawn = {"compare/predictions": predictions} if predictions.exists() else {}
    texts = {
        "report": ("report.html", page(comparison, list(drawn.values()))),
        "table": ("table.md", f"{' '.join(comparison.sentences)}\n\n{comparison.table_markdown}\n"),
        "numbers": ("comparison.json", json.dumps(comparison.to_json(), indent=2, allow_nan=False, default=str) + "\n"),
    }
    files: dict[str, Path] = {}
    for key, (name, content) in texts.items():
        files[key] = destination / name
        files[key].write_text(content, encoding="utf-8")
    for name, figure in (
        ("path_effect", pictures.path_card(comparison)),
        ("aggregators", pictures.aggregator_card(comparison)),
    ):
        if figure is not None:
            files[f"compare/{name}"] = destination / f"{name}.png"
            figure.savefig(files[f"compare/{name}"])
    return files | drawn
