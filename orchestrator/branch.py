"""One pair of models of a search: what the paths between them will read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Connection:
    """A tap of the student and the teacher's tap that it learns from, with their shapes: of maps, channel first."""

    student: str
    teacher: str
    student_shape: tuple[int, ...]
    teacher_shape: tuple[int, ...]


@dataclass(frozen=True)
class ConnectedPath:
    """A path between two models.

    Attributes:
        name: of the path.
        use: its class.
        layers: the names of its losses.
        connections: its tap pairs.
        adapter_parameters: learned numbers of its own.
        compares: whose images it compares with each other: of a worker's ``share``, or the whole ``batch``; empty
            where it looks at each image by itself.
    """

    name: str
    use: str
    layers: tuple[str, ...]
    connections: tuple[Connection, ...]
    adapter_parameters: int
    compares: Literal["", "share", "batch"] = ""


@dataclass(frozen=True)
class Branch:
    """A student, its teacher and the paths between them.

    Attributes:
        data: name of the data set.
        image_shape: (channel, height, width) of its images.
        num_classes: number of its classes.
        student: name of the student's model.
        student_parameters: learned numbers of the student.
        teacher: name of the teacher's model; ``None`` where there is none.
        teacher_parameters: learned numbers of the teacher.
        paths: all paths of the file.
        messages: what loading weights had to say.
    """

    data: str
    image_shape: tuple[int, int, int]
    num_classes: int
    student: str
    student_parameters: int
    teacher: str | None
    teacher_parameters: int | None
    paths: tuple[ConnectedPath, ...]
    messages: tuple[str, ...] = ()

    @property
    def compression(self) -> float | None:
        """How many times larger the teacher is than the student."""
        return None if self.teacher_parameters is None else self.teacher_parameters / self.student_parameters

    def plain(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "compression": self.compression}
