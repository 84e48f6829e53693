"""Which answers of two models can be compared."""

from __future__ import annotations

from distill.taps import OUTPUT, Probe, TapPair


def pair_answers(path: str, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
    """Pair the outputs of both models, as one layer named ``logits``.

    Args:
        path: who compares them, for the message.
        student: the student's taps.
        teacher: the teacher's taps.

    Raises:
        ValueError: their shapes differ.
    """
    if student.output_shape != teacher.output_shape:
        raise ValueError(
            f"{path} compares logits of equal shape, but the student gives {list(student.output_shape)} and the "
            f"teacher {list(teacher.output_shape)} a sample: both models need the same number of classes, and of "
            "places; use paths between features with these two"
        )
    return (TapPair(student=OUTPUT, teacher=OUTPUT, layer="logits"),)


def share_kind(path: str, student: Probe, teacher: Probe, takes_independent: bool, takes_places: bool) -> bool:
    """Return whether each class has a probability of its own (sigmoid) in both models; in neither they share one.

    Args:
        path: who compares them, for the message.
        student: the student's taps.
        teacher: the teacher's taps; its output has the same shape.
        takes_independent: whether the path takes classes that each have a probability of their own.
        takes_places: whether the path takes answers at many places of an image.

    Raises:
        ValueError: it is so in one model alone, or the path does not take such answers.
    """
    independent = student.head.independent
    if independent != teacher.head.independent:
        kinds = [
            "each its own (sigmoid)" if probe.head.independent else "one to share (softmax)"
            for probe in (student, teacher)
        ]
        raise ValueError(
            f"{path} compares probabilities, but the student gives its classes {kinds[0]} and the teacher {kinds[1]}; "
            "use paths between features with these two"
        )
    if independent and not takes_independent:
        raise ValueError(
            f"{path} needs classes that share one probability (softmax), but here each has its own (sigmoid); use "
            "SoftTarget, Logits or paths between features"
        )
    if len(student.output_shape) > 1 and not takes_places:
        raise ValueError(
            f"{path} takes one answer an image, but these models give logits {list(student.output_shape)} a sample; "
            "use SoftTarget or DIST"
        )
    return independent


def check_boxes(path: str, student: Probe, teacher: Probe) -> None:
    """Raise ``ValueError`` where equal offsets make other boxes in student and teacher, as far as that is known.

    Args:
        path: who compares them, for the message.
        student: the student's taps.
        teacher: the teacher's taps.
    """
    own, other = student.head.boxes, teacher.head.boxes
    if own and other and own != other:
        raise ValueError(
            f"{path} compares boxes that both models make in one way of the same anchors, but the student's are of "
            f"{own}, and the teacher's of {other}; use paths between features, such as PKD or FGD"
        )
