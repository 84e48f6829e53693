"""A table of text, before it is laid out for a terminal, markdown or a page."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        cells: text of each column.
        mark: ``best``, ``BELOW``, ``below?`` or empty; it is also a cell, so that it reads without colour.
        starts_block: whether a gap goes before it.
    """

    cells: tuple[str, ...]
    mark: str = ""
    starts_block: bool = False


@dataclass(frozen=True)
class Grid:
    """Rows under a header.

    Attributes:
        header: title of each column.
        rows: the lines.
        numeric: positions of the columns that align to the right.
        notes: lines below the table, such as a legend.
    """

    header: tuple[str, ...]
    rows: tuple[Row, ...]
    numeric: frozenset[int] = frozenset()
    notes: tuple[str, ...] = field(default=())

    def without_empty_columns(self) -> Grid:
        """Return the table without columns that have no text in any row."""
        keep = [column for column in range(len(self.header)) if any(row.cells[column] for row in self.rows)]
        return Grid(
            header=tuple(self.header[column] for column in keep),
            rows=tuple(
                Row(tuple(row.cells[column] for column in keep), row.mark, row.starts_block) for row in self.rows
            ),
            numeric=frozenset(new for new, column in enumerate(keep) if column in self.numeric),
            notes=self.notes,
        )
