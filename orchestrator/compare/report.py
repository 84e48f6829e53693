"""The report: one page without script, made to be read inside MLflow's narrow pane."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

from orchestrator.compare import charts, pictures
from orchestrator.compare.arm_summary import ArmSummary
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.grid import Grid
from orchestrator.compare.grids import BELOW, BEST, SURELY_BELOW, aggregators_grid, arms_grid, method_notes, paths_grid
from orchestrator.compare.palette import STYLE
from orchestrator.compare.sheet import SHEET
from orchestrator.compare.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# MLflow shows the page in a sandbox: links in it open nothing, so run ids are text to copy.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
CLASSES = {BEST: "best", SURELY_BELOW: "surely", BELOW: "maybe"}


def page(comparison: Comparison, photographs: Sequence[Path] = ()) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        comparison: what to show.
        photographs: PNG files of what the models find on images, embedded at the end of the tables.
    """
    title = html.escape(comparison.experiment.question)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{SHEET}</style>\n</head>\n<body>",
            f"<h1>{title}</h1>\n<div class=muted>{html.escape(_scope(comparison))}</div>",
            f"<div class=answer>{''.join(f'<p>{_text(text)}</p>' for text in comparison.sentences)}</div>",
            _cautions(comparison),
            f"<div class=pictures>{_pictures(comparison)}</div>",
            *_tables(comparison),
            *(_photograph(file) for file in photographs),
            "<details><summary>Run ids, by seed, to paste into the search of the tracking UI</summary>",
            f"<div class=wide>{_runs(comparison)}</div></details>",
            _incomplete(comparison),
            "<h2>Method</h2>",
            f"<ul>{''.join(f'<li>{html.escape(note)}</li>' for note in _method(comparison))}</ul>",
            "<h2>How to reproduce</h2>",
            f"<pre>{html.escape(_reproduce(comparison))}</pre>",
            "</body>\n</html>\n",
        ]
    )


def _scope(comparison: Comparison) -> str:
    planned = comparison.experiment.planned
    runs = counted(comparison.num_records, "run") + (f" of {planned} planned" if planned is not None else "")
    aggregators = {arm.runs.arm.aggregator for arm in comparison.arms if not arm.runs.arm.is_alone}
    sets = {arm.runs.arm.paths for arm in comparison.arms if not arm.runs.arm.is_alone}
    metric = comparison.metric
    verb = "ranked" if metric.instead_of is None else "compared"
    ranked = f"{verb} on TEST (protocol paper)" if metric.is_test else f"{verb} by {metric.label}"
    return (
        f"{comparison.experiment.name}: {runs}, seeds {', '.join(map(str, comparison.seeds))}, "
        f"{counted(len(aggregators), 'aggregator')}, {counted(len(sets), 'path set')}, {ranked}"
    )


def _cautions(comparison: Comparison) -> str:
    items = [f"{text}." for text in comparison.cautions]
    if comparison.incomplete:
        items.append(f"{len(comparison.incomplete)} arms are not complete; they are listed below.")
    if not items:
        return ""
    return f"<div class=warn><ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul></div>"


def _pictures(comparison: Comparison) -> str:
    paths, aggregators = pictures.path_rows(comparison), pictures.aggregator_rows(comparison)
    found: list[tuple[Figure | None, str]] = []
    for rows, title in ((paths, "Effect of adding one path"), (aggregators, "Aggregators against Equal")):
        if rows:
            figure = pictures.forest(rows, title, comparison)
            found.append((figure, pictures.describe(rows, title, comparison)))
    found.append(
        (charts.heatmap(comparison), "Map of the difference to the student alone; the table of arms has its numbers.")
    )
    found.append((charts.cost(comparison), "Each arm's metric against its minutes; the table of arms has its numbers."))
    return "\n".join(_figure(figure, text, number) for number, (figure, text) in enumerate(found) if figure is not None)


def _figure(figure: Figure, text: str, number: int) -> str:
    """A picture as inline SVG: its ids made unique on the page, without the file's own head and metadata."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):  # how text is written is decided here, not where it was drawn
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>p{number}-", svg)
    label = html.escape(text, quote=True)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f"<figure>{svg}</figure>"


def _photograph(file: Path) -> str:
    """A PNG file inside the page, which shows nothing from outside."""
    text = "What teacher, student alone and best student find on images, beside the truth."
    source = f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
    return f'<h2>Predictions</h2><figure><img src="{source}" alt="{text}" style="max-width:100%"></figure>'


def _tables(comparison: Comparison) -> list[str]:
    parts = []
    if comparison.paths:
        parts += ["<h2>Paths</h2>", _html(paths_grid(comparison))]
    if comparison.aggregators:
        parts += ["<h2>Aggregators</h2>", _html(aggregators_grid(comparison))]
    return [*parts, "<h2>Arms</h2>", _html(arms_grid(comparison, path_width=22, setting_width=34))]


def _html(grid: Grid) -> str:
    align = [" class=n" if column in grid.numeric else "" for column in range(len(grid.header))]
    head = "".join(f"<th{css}>{html.escape(cell)}</th>" for css, cell in zip(align, grid.header, strict=True))
    lines = []
    for row in grid.rows:
        css = " ".join(filter(None, [CLASSES.get(row.mark, ""), "gap" if row.starts_block else ""]))
        cells = "".join(f"<td{css}>{_cell(cell)}</td>" for css, cell in zip(align, row.cells, strict=True))
        lines.append(f'<tr class="{css}">{cells}</tr>' if css else f"<tr>{cells}</tr>")
    notes = "".join(f"<div class=muted>{html.escape(note)}</div>" for note in grid.notes)
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>{notes}"


def _text(text: str) -> str:
    return html.escape(text).replace("+-", "&plusmn;")


def _cell(text: str) -> str:
    """A cell that breaks between the paths of a long set, never inside an interval."""
    escaped = _text(text)
    return escaped.replace(", ", ",&nbsp;") if "[" in escaped else re.sub(r"(?<=\w)\+(?=\w)", "+<wbr>", escaped)


def _runs(comparison: Comparison) -> str:
    lines = "".join(_run_line(arm) for arm in comparison.arms)
    return f"<table><thead><tr><th>arm</th><th>seeds</th><th>run ids</th></tr></thead><tbody>{lines}</tbody></table>"


def _run_line(arm: ArmSummary) -> str:
    seeds = ", ".join(str(run.seed) for run in arm.runs.finished)
    ids = " ".join(f"<code>{html.escape(run.run_id or run.key)}</code>" for run in arm.runs.finished)
    name = _cell(arm.runs.arm.name)
    return f"<tr><td>{name}</td><td>{seeds}</td><td class=ids>{ids}</td></tr>"


def _incomplete(comparison: Comparison) -> str:
    if not comparison.incomplete:
        return ""
    lines = "".join(f"<li>{html.escape(runs.story)}</li>" for runs in comparison.incomplete)
    return f"<h2>Stopped, failed and missing runs</h2><ul>{lines}</ul>"


def _method(comparison: Comparison) -> list[str]:
    return [
        "Every run is modelled as its arm plus its seed plus noise. All arms of a seed share initial weights, order of "
        "the data and augmentation, so differences between arms are paired by seed.",
        "A path's effect is the mean over all pairs of arms that differ in this path only, within an aggregator; the "
        "student alone is the empty set of every aggregator. Undecided never means without effect.",
        "The best arm is chosen by its mean, and choosing flatters: repeat it and the student alone on fresh seeds "
        "before relying on its interval."
        + ("" if comparison.metric.is_test else " The test images are only reported: they rank and decide nothing."),
        *method_notes(comparison),
    ]


def _reproduce(comparison: Comparison) -> str:
    details = comparison.experiment.details
    versions = details.get("versions") or {}
    named = (
        ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else versions
    )
    facts = {
        "created": details.get("created"),
        "git": details.get("git"),
        "versions": named,
        "configuration": details.get("config_hash"),
        "data": details.get("data_fingerprint"),
        "teacher": details.get("teacher_fingerprint"),
    }
    name = comparison.experiment.name
    against = "" if comparison.against is None else f" --against {shlex.quote(comparison.against)}"
    lines = [
        f"distillery sweep {name}.yaml",
        f"distillery compare {name}{against}",
        "",
        *(f"{key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in facts.items() if value),
    ]
    return "\n".join(lines)
