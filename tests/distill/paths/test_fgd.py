from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from detection_cases import BOXES, CANVAS, naive_softmax
from naive_maps import flat, naive_convolution, naive_pooled_alike
from path_cases import batch_of, connect, make_case, make_probe
from torch import Tensor, nn

from distill.batch import Batch
from distill.objects import Objects
from distill.paths import FGD, Path
from distill.paths.base import key

OFF = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "lambda_": 0.0}


def batch(canvas: tuple[int, int], *images: Sequence[Sequence[float]], ignored: int = 0) -> Batch:
    """Return a batch with these boxes, image by image; the last `ignored` ones of each are ignored."""
    objects = [
        (
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.ones(len(boxes), dtype=torch.int64),
            torch.arange(len(boxes)) >= len(boxes) - ignored,
        )
        for boxes in images
    ]
    return Batch(torch.zeros(len(images), 3, *canvas), Objects.of(objects), torch.arange(len(images)))


def loss_of(path: Path, student: Tensor, teacher: Tensor, seen: Batch) -> float:
    """Return the loss between maps `[batch, channel, height, width]`."""
    connect(path, [tuple(student.shape[1:])], [tuple(teacher.shape[1:])])  # type: ignore[list-item]
    loss: float = path({"s0": student}, path.target({"t0": teacher}), seen)["s0"].item()
    return loss


def golden_objects_and_background(cls: type[Path]) -> None:
    # |t| is the same everywhere: attention 1.  The box covers the first two of four positions, each counts 1/2, and so
    # does each of the two of the background.  Squares 1, 0 | 16, 4: 3 * 1/2 + 5 * 20/2 = 51.5; nothing in the second
    # image: 25.75 in the mean.
    teacher = torch.tensor([2.0, 2.0, -2.0, 2.0]).expand(2, 1, 1, 4)
    student = teacher.clone()
    student[0, 0, 0] -= torch.tensor([1.0, 0.0, 4.0, -2.0])
    seen = batch((1, 4), [[0, 0, 2, 1]], [])
    path = cls(**{**OFF, "alpha": 3.0, "beta": 5.0})
    assert loss_of(path, student, teacher, seen) == pytest.approx(25.75)
    torch.testing.assert_close(path.target({"t0": teacher})["s0"], teacher)


def golden_the_smallest_box_counts(cls: type[Path]) -> None:
    # Boxes of four positions and of one, an ignored one over all: 1/4, 1, 1/4, 1/4 of squares 1, 4, 9, 16: 10.5.  No
    # position is background.
    teacher = torch.ones(1, 1, 1, 4)
    student = teacher - torch.tensor([1.0, 2.0, 3.0, 4.0])
    seen = batch((1, 4), [[0, 0, 4, 1], [1, 0, 2, 1], [0, 0, 1, 1]], ignored=1)
    assert loss_of(cls(**{**OFF, "alpha": 1.0, "beta": 7.0}), student, teacher, seen) == pytest.approx(10.5)


def golden_boxes_are_scaled_and_cover_what_they_touch(cls: type[Path]) -> None:
    # Image of 16 x 16, map of 2 x 4.  The box 5..9 across touches columns 1 and 2, 6..8 down row 0 alone.  Squares
    # 1, 2, 4, 8 / 16, 32, 64, 128: objects (2 + 4) / 2 = 3, background 249 / 6 = 41.5, twice.
    squares = torch.tensor([[1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 128.0]])
    teacher = torch.ones(1, 1, 2, 4)
    options = {**OFF, "alpha": 1.0, "beta": 2.0}
    assert loss_of(cls(**options), teacher - squares.sqrt(), teacher, batch((16, 16), [[5, 6, 9, 8]])) == pytest.approx(
        86
    )
    # Exactly the position of column 3 and row 1: 128, and 127 / 7.
    seen = batch((16, 16), [[12, 8, 16, 16]])
    assert loss_of(cls(**options), teacher - squares.sqrt(), teacher, seen) == pytest.approx(128 + 2 * 127 / 7)
    # Within the position of column 1 and row 1, without touching a border: 32, and 223 / 7.
    seen = batch((16, 16), [[5, 10, 5.5, 12]])
    assert loss_of(cls(**options), teacher - squares.sqrt(), teacher, seen) == pytest.approx(32 + 2 * 223 / 7)


def golden_attention_weighs(cls: type[Path]) -> None:
    # T = 2: |t| / T is ln 3 and 0: P = 2 * (3/4, 1/4).  The student is 0: only the first position differs, by 2 ln 3.
    # All is background: 1/2 * 3/2 * (2 ln 3)^2.
    teacher = torch.tensor([[[[-2 * math.log(3), 0.0]]]])
    path = cls(**{**OFF, "beta": 1.0, "temperature": 2.0})
    assert loss_of(path, torch.zeros(1, 1, 1, 2), teacher, batch((1, 2), [])) == pytest.approx(3 * math.log(3) ** 2)
    # The same with two channels at one position.
    path = cls(**{**OFF, "beta": 1.0, "temperature": 2.0})
    teacher = teacher.reshape(1, 2, 1, 1)
    assert loss_of(path, torch.zeros(1, 2, 1, 1), teacher, batch((1, 2), [])) == pytest.approx(6 * math.log(3) ** 2)


def golden_attention_is_matched(cls: type[Path]) -> None:
    # T = 1/2: P of the teacher 7/4, 1/4, of the student 1/4, 7/4: 3.  There is one channel: Q is 1 in both.  gamma = 3,
    # two images of which one agrees: 9/2.
    one, other = torch.tensor([math.log(7) / 2, 0.0]), torch.tensor([0.0, -math.log(7) / 2])
    for shape in ((2, 1, 1, 2), (2, 2, 1, 1)):  # by position, by channel
        teacher = one.expand(2, 2).reshape(shape)
        student = torch.stack([other, one]).reshape(shape)
        path = cls(**{**OFF, "gamma": 3.0})
        assert loss_of(path, student, teacher, batch((1, 2), [], [])) == pytest.approx(4.5)


def golden_relations(cls: type[Path]) -> None:
    # As built the relations add nothing: squares 1 + 4, lambda = 3: 15, the mean with an image that agrees: 7.5.
    path = cls(**{**OFF, "lambda_": 3.0})
    teacher = torch.zeros(2, 1, 1, 2)
    student = torch.tensor([[1.0, 2.0], [0.0, 0.0]]).reshape(2, 1, 1, 2)
    assert loss_of(path, student, teacher, batch((1, 2), [], [])) == pytest.approx(7.5)
    # The teacher's attention is on the second channel, ln 3 and 0: 3/4 and 1/4.  Of the first channel it sees
    # 3 * 3/4 - 5 * 1/4 = 1, the entry makes (3, 0) of it, normalised (1, -1), after the ReLU (1, 0), and the exit adds
    # 5 in the first channel (7, had the attention been even).  The student's relation adds nothing, and its first
    # channel is 1 less: 2 * 36.
    maps = torch.tensor([[[3.0, -5.0]], [[math.log(3), 0.0]], [[0.0, 0.0]], [[0.0, 0.0]]])[None]
    path = connect(cls(**{**OFF, "lambda_": 1.0}), [(4, 1, 2)], [(4, 1, 2)])
    of_teacher = path.relations[key("s0")][1]
    for layer, weight in ((of_teacher.entry, [[3.0, 0, 0, 0], [0, 0, 0, 0]]), (of_teacher.mask, [0, 1.0, 0, 0])):
        layer.weight.data = torch.tensor(weight).reshape(layer.weight.shape)
        nn.init.zeros_(layer.bias)
    of_teacher.exit.weight.data = torch.tensor([[5.0, 7.0], [0, 0], [0, 0], [0, 0]])
    student = maps - torch.tensor([1.0, 0, 0, 0])[:, None, None]
    found = path({"s0": student}, path.target({"t0": maps}), batch((1, 2), []))["s0"]
    assert found.item() == pytest.approx(72, rel=1e-3)


def golden_alignment_and_size(cls: type[Path]) -> None:
    # Two columns of the student's are averaged to the teacher's one: 2.  Its one channel is aligned to (2, -2).  The
    # teacher is (1, 1): squares 1 + 9.
    path = connect(cls(**{**OFF, "lambda_": 1.0}), [(1, 1, 2)], [(2, 1, 1)])
    align = path.alignments[key("s0")]
    align.weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    nn.init.zeros_(align.bias)
    student = torch.tensor([[[[1.0, 3.0]]]])
    loss = path({"s0": student}, path.target({"t0": torch.ones(1, 2, 1, 1)}), batch((4, 4), []))["s0"]
    torch.testing.assert_close(loss, torch.tensor(10.0))


GOLDENS = {
    "FGD": (
        golden_objects_and_background,
        golden_the_smallest_box_counts,
        golden_boxes_are_scaled_and_cover_what_they_touch,
        golden_attention_weighs,
        golden_attention_is_matched,
        golden_relations,
        golden_alignment_and_size,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Image by image, channel by channel, position by position; the objects are those of the family's batch."""
    losses = {}
    for pair in path.pairs:
        own, wanted = naive_pooled_alike(student[pair.student].tolist(), teacher[pair.teacher].tolist())
        align = path.alignments[key(pair.layer)]
        if isinstance(align, nn.Conv2d):
            own = naive_convolution(align, own)
        of_student, of_teacher = path.relations[key(pair.layer)]
        total = 0.0
        for s, t in zip(own, wanted, strict=True):
            total += _focal(path, s, t)
            total += path.gamma * sum(
                abs(a - b)
                for one, other in zip(_attention(path, s), _attention(path, t), strict=True)
                for a, b in zip(one, other, strict=True)
            )
            related = _related(of_student, s), _related(of_teacher, t)
            total += path.lambda_ * sum(
                (a - b) ** 2 for one, other in zip(*related, strict=True) for a, b in zip(one, other, strict=True)
            )
        losses[pair.layer] = total / len(own)
    return losses


def _attention(path: Path, maps: Any) -> tuple[list[float], list[float]]:
    rows = [[abs(value) for value in flat(grid)] for grid in maps]
    positions, channels = len(rows[0]), len(rows)
    by_position = naive_softmax([sum(column) / channels / path.temperature for column in zip(*rows, strict=True)])
    by_channel = naive_softmax([sum(row) / positions / path.temperature for row in rows])
    return [positions * share for share in by_position], [channels * share for share in by_channel]


def _focal(path: Path, s: Any, t: Any) -> float:
    height, width = len(t[0]), len(t[0][0])
    shares = [[0.0] * width for _ in range(height)]
    for left, top, right, bottom in BOXES[:2]:
        across = _covered(left * width / CANVAS[1], right * width / CANVAS[1], width)
        down = _covered(top * height / CANVAS[0], bottom * height / CANVAS[0], height)
        for row, column in itertools.product(down, across):
            shares[row][column] = max(shares[row][column], 1 / (len(down) * len(across)))
    background = sum(share == 0 for share in flat(shares))
    by_position, by_channel = _attention(path, t)
    total = 0.0
    for channel, row, column in itertools.product(range(len(t)), range(height), range(width)):
        share = shares[row][column]
        weight = path.alpha * share if share else path.beta / background
        weight *= by_position[row * width + column] * by_channel[channel]
        total += weight * (t[channel][row][column] - s[channel][row][column]) ** 2
    return total


def _covered(first: float, last: float, positions: int) -> list[int]:
    return [place for place in range(positions) if place < last and place + 1 > first]


def _related(relation: nn.Module, maps: Any) -> list[list[float]]:
    rows = [flat(grid) for grid in maps]
    mask = relation.mask.weight.flatten().tolist()
    logits = [
        sum(w * value for w, value in zip(mask, column, strict=True)) + relation.mask.bias.item()
        for column in zip(*rows, strict=True)
    ]
    attention = naive_softmax(logits)
    context = [sum(share * value for share, value in zip(attention, row, strict=True)) for row in rows]
    hidden = _linear(relation.entry, context)
    mean = sum(hidden) / len(hidden)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in hidden) / len(hidden) + relation.norm.eps)
    scales = zip(relation.norm.weight.tolist(), relation.norm.bias.tolist(), strict=True)
    normal = [
        max(scale * (value - mean) / deviation + shift, 0.0)
        for value, (scale, shift) in zip(hidden, scales, strict=True)
    ]
    added = _linear(relation.exit, normal)
    return [[value + more for value in row] for row, more in zip(rows, added, strict=True)]


def _linear(layer: nn.Linear, values: list[float]) -> list[float]:
    return [
        sum(w * value for w, value in zip(line, values, strict=True)) + bias
        for line, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "lambda_"])
def test_weights_are_not_negative(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be a finite number of at least 0, found -1"):
        FGD(**{name: -1})
    FGD(**{name: 0})


def test_a_temperature_is_above_zero() -> None:
    with pytest.raises(ValueError, match=r"^temperature must be a finite number above 0, found 0"):
        FGD(temperature=0)


def test_without_objects_it_does_not_connect() -> None:
    probe = make_probe("s", [(3, 4, 4)])
    with pytest.raises(ValueError, match=r"^FGD reads the classes of objects, but in this task images have them$"):
        FGD().connect(probe, probe)


def test_a_batch_of_classes_is_refused() -> None:
    case = make_case("FGD")
    with pytest.raises(ValueError, match=r"labelled with classes here, where objects are needed"):
        case.path(case.student, case.target(), batch_of(3))


def test_images_without_objects_are_background() -> None:
    case = make_case("FGD", batch_size=2, student=((3, 4, 4),), teacher=((3, 4, 4),))
    found = case.path(case.student, case.target(), batch((16, 16), [], []))["s0"]
    torch.testing.assert_close(found, case.path.layer_loss("s0", case.student["s0"], case.teacher["t0"]))
    assert found > 0


MUTANTS = {
    "FGD": [
        ("boxes[~ignored]", "boxes"),
        ("[maps.shape[3] / width, maps.shape[2] / height]", "[maps.shape[2] / height, maps.shape[3] / width]"),
        ("((1, size[0]), (0, size[1]))", "((0, size[0]), (1, size[1]))"),
        (".ceil() - 1, first)", ".ceil(), first)"),
        (".ceil() - 1, first)", ".floor() - 1, first)"),
        ("boxes[:, axis].floor()", "boxes[:, axis].ceil()"),
        (".amax(dim=0)", ".sum(dim=0)"),
        ("self.alpha * inside + self.beta", "self.beta * inside + self.alpha"),
        (" / background.sum().clamp_min(1)", ""),
        (" / areas[:, None, None]", ""),
        ("weights * by_position * by_channel", "weights * own_by_position * by_channel"),
        ("weights * by_position * by_channel", "weights * by_position * own_by_channel"),
        ("(teacher - student).square()", "(teacher - student).abs()"),
        ("(by_position - own_by_position).abs()", "(by_position - own_by_position).square()"),
        (" + (by_channel - own_by_channel).abs().sum()", ""),
        ("self.gamma * attention + self.lambda_ * relations", "self.lambda_ * attention + self.gamma * relations"),
        ("total / len(teacher)", "total"),
        ("sizes = maps.abs()", "sizes = maps"),
        (" * sizes[0, 0].numel()", ""),
        (" * maps.shape[1]", ""),
        ("sizes.mean(dim=1).flatten(1) / self.temperature", "sizes.mean(dim=1).flatten(1)"),
        ("sizes.mean(dim=(2, 3)) / self.temperature", "sizes.mean(dim=(2, 3))"),
        ("of_student, of_teacher = cast", "of_teacher, of_student = cast"),
        ("F.softmax(self.mask(maps).flatten(1), dim=1)", "F.softmax(0 * self.mask(maps).flatten(1), dim=1)"),
        ("F.relu(self.norm", "(self.norm"),
        ("self.norm(self.entry(context))", "self.entry(context)"),
        ("return maps + added", "return maps - 2 * added"),
        ("chain(self.exit.parameters(), [self.mask.bias])", "[self.mask.bias]"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
