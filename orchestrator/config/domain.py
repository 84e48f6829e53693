"""What a key of the search may become."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """One value of a searched key.

    Attributes:
        label: short text, unique among the key's values.
        value: plain data to put into the configuration.
        origin: key of the file under which the value stands.
    """

    label: str
    value: Any
    origin: str

    @property
    def shown(self) -> Any:
        """The value where it is a single one, else its label: what tables and records hold."""
        return self.label if isinstance(self.value, dict | list) else self.value


class Domain(ABC):
    """The values that one key of the search takes."""

    key: str
    """Dotted key of the file."""
    is_sampled: bool
    """Whether values are drawn, rather than all of them tried."""
    choices: tuple[Choice, ...]
    """All values, or the ends of a range: what a check must try."""

    @abstractmethod
    def draw(self, generator: random.Random) -> Choice:
        """Draw a value."""

    @abstractmethod
    def at(self, assigned: Any) -> Choice:
        """Return the value that was recorded as ``assigned``.

        Raises:
            ValueError: this domain has no such value.
        """

    @abstractmethod
    def assigned(self, choice: Choice) -> Any:
        """Return the plain value under which a choice is recorded."""

    @abstractmethod
    def distribution(self) -> Any:
        """Return the domain as Optuna knows it; the parameter is what :meth:`assigned` returns."""
