"""Short names for long path sets."""

from __future__ import annotations

from collections.abc import Iterable


class PathLabels:
    """Names path sets within a width: ``a+b``, else ``all-c``, else ``set 1``, with a legend for what is not plain.

    Args:
        paths: all paths of the sweep.
        sets: the path sets to name.
        width: characters that a name may take.
    """

    def __init__(self, paths: Iterable[str], sets: Iterable[tuple[str, ...]], *, width: int) -> None:
        universe = tuple(sorted(paths))
        self._labels: dict[tuple[str, ...], str] = {}
        self._legend: dict[str, str] = {}
        for names in dict.fromkeys(sets):
            plain = "+".join(names)
            short = "-".join(["all", *[path for path in universe if path not in names]])
            if len(plain) <= width or not names:
                self._labels[names] = plain
            elif len(short) <= width:
                self._labels[names] = short
                self._legend["all"] = "+".join(universe)
            else:
                label = f"set {1 + sum(name.startswith('set ') for name in self._legend)}"
                self._labels[names] = label
                self._legend[label] = plain

    def __getitem__(self, names: tuple[str, ...]) -> str:
        return self._labels[names]

    @property
    def legend(self) -> tuple[str, ...]:
        """One line for each name that needs an explanation."""
        return tuple(f"{label} = {plain}" for label, plain in self._legend.items())
