"""Lays the tables out for a terminal and as markdown."""

from __future__ import annotations

import textwrap

from orchestrator.compare.comparison import Comparison
from orchestrator.compare.grid import Grid, Row
from orchestrator.compare.grids import (
    BELOW,
    BEST,
    SURELY_BELOW,
    aggregators_grid,
    arms_grid,
    method_notes,
    paths_grid,
)

WIDTH = 140
# Widths of path sets and settings to try, the roomiest first.
FORMS = ((40, 40), (34, 34), (28, 28), (22, 22), (16, 22), (10, 22), (22, 10), (16, 10), (10, 10))
GREEN, RED, YELLOW, RESET = "\033[32m", "\033[31m", "\033[33m", "\033[0m"
COLORS = {BEST: GREEN, SURELY_BELOW: RED, BELOW: YELLOW}


def text(comparison: Comparison, *, color: bool) -> str:
    """Return the tables for a terminal, at most 140 columns wide.

    Args:
        comparison: what to show.
        color: whether to colour rows with ANSI codes; every mark also reads without.
    """
    parts = [_layout(_fitting(comparison), color=color)]
    if comparison.paths:
        parts.append(_layout(paths_grid(comparison), color=False))
    if comparison.aggregators:
        parts.append(_layout(aggregators_grid(comparison), color=False))
    lines = [*method_notes(comparison), *(f"Caution: {text}." for text in comparison.cautions)]
    lines += [f"Not complete: {runs.story}." for runs in comparison.incomplete]
    if lines:
        parts.append("\n".join(_wrapped(line) for line in lines))
    return "\n\n".join(parts)


def markdown(comparison: Comparison) -> str:
    """Return the tables as markdown."""
    parts = [_pipes(arms_grid(comparison, path_width=60, setting_width=60))]
    if comparison.paths:
        parts.append(_pipes(paths_grid(comparison)))
    if comparison.aggregators:
        parts.append(_pipes(aggregators_grid(comparison)))
    lines = [*method_notes(comparison), *(f"**Caution**: {text}." for text in comparison.cautions)]
    lines += [f"**Not complete**: {runs.story}." for runs in comparison.incomplete]
    if lines:
        parts.append("\n".join(f"- {_escaped(line)}" for line in lines))
    return "\n\n".join(parts)


def _fitting(comparison: Comparison) -> Grid:
    """The widest form of the arms' table that a terminal of 140 columns can show."""
    for path_width, setting_width in FORMS:
        grid = arms_grid(comparison, path_width=path_width, setting_width=setting_width)
        if sum(_widths(grid)) + 2 * (len(grid.header) - 1) <= WIDTH:
            break
    return grid


def _widths(grid: Grid) -> list[int]:
    columns = zip(grid.header, *(row.cells for row in grid.rows), strict=True)
    return [max(len(cell) for cell in column) for column in columns]


def _layout(grid: Grid, *, color: bool) -> str:
    widths = _widths(grid)

    def line(cells: tuple[str, ...]) -> str:
        padded = [
            cell.rjust(width) if column in grid.numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    lines = [line(grid.header), "-" * min(WIDTH, sum(widths) + 2 * (len(widths) - 1))]
    for row in grid.rows:
        if row.starts_block:
            lines.append("")
        lines.append(_painted(line(row.cells), row) if color else line(row.cells))
    lines += [_wrapped(note) for note in grid.notes]
    return "\n".join(lines)


def _painted(line: str, row: Row) -> str:
    code = COLORS.get(row.mark)
    return f"{code}{line}{RESET}" if code else line


def _pipes(grid: Grid) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(_escaped(cell) for cell in cells)} |"

    rule = tuple("---:" if column in grid.numeric else "---" for column in range(len(grid.header)))
    lines = [line(grid.header), line(rule)]
    for row in grid.rows:
        lines.append(line(tuple(f"**{cell}**" if cell and row.mark else cell for cell in row.cells)))
    lines += ["", *(f"{note}  " for note in grid.notes)] if grid.notes else []
    return "\n".join(lines)


def _escaped(cell: str) -> str:
    # An underscore in a name such as soft_target is no emphasis inside a word; a bar would end the cell.
    return cell.replace("|", "\\|")


def _wrapped(line: str) -> str:
    return "\n".join(textwrap.wrap(line, WIDTH - 20, subsequent_indent="  ", break_long_words=False))
