"""Which tap of the student learns from which tap of the teacher."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill.taps.probing import Probe
from distill.taps.tap import LEVEL, OUTPUT, Tap, is_output
from distill.taps.trunk import spread

MIN_COMMON = 2
"""Strides that two models of several stages must share for pairing by stride."""


@dataclass(frozen=True)
class TapPair:
    """A tap of the student and the tap of the teacher that it learns from.

    Attributes:
        student: name of the student's tap.
        teacher: name of the teacher's tap.
        layer: unique label of the pair: the student's tap, followed by the teacher's where the student's is used twice;
            without the colon that begins the name of a pyramid's level.
    """

    student: str
    teacher: str
    layer: str


def pair_stages(student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
    """Pair two models of any families stage by stage.

    Stages of equal stride are paired. Where both models have several stages and share fewer than two strides, as a ViT
    does with any model, they are paired by relative depth: as many pairs as the model of fewer stages has, in order
    and evenly spaced, the deepest with the deepest.

    The levels of a pyramid are stages, so two detectors are paired level by level. Where several levels of a model have
    one stride, since the coarse ones of a small image all come down to one place, they are paired in order.

    Raises:
        ValueError: a model has no stage.
    """
    for role, probe in (("student", student), ("teacher", teacher)):
        if not probe.stages:
            raise ValueError(
                f"taps: auto pairs feature maps by stage, but no module of the {role} returns a map of more than one "
                "place that can be tapped; name the taps, or choose paths between logits"
            )
    number = min(len(student.stages), len(teacher.stages))
    students, teachers = _by_octave(student), _by_octave(teacher)
    stages = [
        pair
        for octave in sorted(students.keys() & teachers.keys())
        for pair in zip(students[octave], teachers[octave], strict=False)
    ]
    if len(stages) < min(MIN_COMMON, number):
        stages = list(zip(spread(student.stages, number), spread(teacher.stages, number), strict=True))
    return _label([(one.name, other.name) for one, other in stages])


def pair_named(student: Probe, teacher: Probe, pairs: Sequence[Mapping[str, str]] | str) -> tuple[TapPair, ...]:
    """Pair the taps that the user names.

    Args:
        student: the student's taps.
        teacher: the teacher's taps.
        pairs: such as ``[{student: layer2, teacher: layer3}]``.

    Raises:
        ValueError: a pair is incomplete or named twice, a module does not exist or cannot be tapped, a map would meet
            a vector, or a tap is a part of the output that is no level of a pyramid.
    """
    if isinstance(pairs, str) or not pairs:
        raise ValueError(
            f"taps must be auto or a list of pairs such as {{student: NAME, teacher: NAME}}, found {pairs!r}"
        )
    names = []
    for pair in pairs:
        if set(pair) != {"student", "teacher"} or not all(isinstance(name, str) for name in pair.values()):
            raise ValueError(f"taps: a pair is {{student: NAME, teacher: NAME}}, found {pair!r}")
        own, other = _named(student, pair, "student"), _named(teacher, pair, "teacher")
        if own.is_map != other.is_map:
            raise ValueError(
                f"taps: the student's {own.name!r} is {_size(own)} and the teacher's {other.name!r} is {_size(other)}: "
                "a map cannot meet a vector; choose a map on both sides"
            )
        names.append((own.name, other.name))
    for (own_name, other_name), count in Counter(names).items():
        if count > 1:
            raise ValueError(
                f"taps: student {own_name!r} with teacher {other_name!r} is listed {count} times; once is enough"
            )
    return _label(names)


def pair_last(student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
    """Pair the deepest features: the maps that enter global pooling, or vectors in models without maps.

    Of pyramids they are the coarsest levels.

    Raises:
        ValueError: a model has no feature before its output.
    """
    for role, probe in (("student", student), ("teacher", teacher)):
        if probe.last.name == OUTPUT:
            raise ValueError(
                f"no module of the {role} returns a feature before the output; choose paths between logits"
            )
    return _label([(student.last.name, teacher.last.name)])


def pair_before_activation(pairs: Sequence[TapPair], student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
    """Return the pairs with taps that read what enters the activation functions; the layers keep their names.

    Raises:
        ValueError: an activation function is no module, so that nothing can be hooked.
    """
    return tuple(
        TapPair(student.before_activation(pair.student).name, teacher.before_activation(pair.teacher).name, pair.layer)
        for pair in pairs
    )


def _named(probe: Probe, pair: Mapping[str, str], role: str) -> Tap:
    if pair[role] == OUTPUT:
        raise ValueError(f"taps: the {role}'s tap is empty; the logits are compared by paths between logits")
    if is_output(pair[role]) and not pair[role].startswith(LEVEL):
        levels = [tap.name for tap in probe.stages if tap.name.startswith(LEVEL)]
        known = f"; its feature maps are {', '.join(levels)}" if levels else ""
        raise ValueError(f"taps: the {role}'s tap {pair[role]!r} is a part of its output and no feature map{known}")
    try:
        return probe[pair[role]]
    except ValueError as error:
        raise ValueError(f"taps, {role}: {error}") from error


def _size(tap: Tap) -> str:
    return f"{tap.channels}x{tap.height}x{tap.width}"


def _by_octave(probe: Probe) -> dict[int, list[Tap]]:
    """Return the stages of each stride; one, but for a pyramid, which may have several."""
    stages: defaultdict[int, list[Tap]] = defaultdict(list)
    for stage in probe.stages:
        stages[stage.octave].append(stage)
    return stages if probe.is_pyramid else {octave: same[-1:] for octave, same in stages.items()}


def _label(names: Sequence[tuple[str, str]]) -> tuple[TapPair, ...]:
    """Name the layers after the student's taps, without the colon of levels, and after both where one is used twice."""
    uses = Counter(student for student, _ in names)
    pairs = []
    for student, teacher in names:
        label = student if uses[student] == 1 else f"{student}-{teacher.removeprefix(':')}"
        pairs.append(TapPair(student, teacher, label.removeprefix(":")))
    return tuple(pairs)
