from __future__ import annotations

import math

import pytest
import torch
from naive_maps import naive_pooled_alike
from path_cases import batch_of, connect, make_case, make_probe
from torch import Tensor

from distill.batch import Batch
from distill.paths import IFVD, Path

ROOT = math.sqrt(0.5)


def loss_of(path: Path, student: Tensor, teacher: Tensor, masks: list[list[list[int]]]) -> Tensor:
    batch = Batch(torch.zeros(len(student), 1, 1, 1), torch.tensor(masks), torch.arange(len(student)))
    loss: Tensor = path({"s0": student}, path.target({"t0": teacher}), batch)["s0"]
    return loss


def golden_two_positions_of_a_class(cls: type[Path]) -> None:
    # Class 2 has the first two positions, class 0 the third.  Student (1, 0), (0, 1): mean (1/2, 1/2), cosines root
    # 1/2 with both.  Teacher alike there, (3, 4) twice: cosines 1.  Class 0 has its mean: 1 on both sides.
    # (1 - root 1/2)^2 for two of three positions; a second image alike in both models halves the mean.
    student = torch.tensor([[[[1.0, 0.0, 5.0]], [[0.0, 1.0, 1.0]]]])
    teacher = torch.tensor([[[[3.0, 3.0, -1.0]], [[4.0, 4.0, 2.0]]]])
    path = connect(cls(), [(2, 1, 3)], [(2, 1, 3)])
    wanted = 2 / 3 * (1 - ROOT) ** 2
    assert loss_of(path, student, teacher, [[[2, 2, 0]]]).item() == pytest.approx(wanted)
    both = torch.cat([student, 2 * student]), torch.cat([teacher, student])
    assert loss_of(path, *both, [[[2, 2, 0]], [[1, 1, 1]]]).item() == pytest.approx(wanted / 2)


def golden_not_known(cls: type[Path]) -> None:
    # The third position, which would spoil the mean, is not known: two positions remain, and both differ.
    student = torch.tensor([[[[1.0, 0.0, -9.0]], [[0.0, 1.0, 7.0]]]])
    teacher = torch.tensor([[[[3.0, 3.0, 8.0]], [[4.0, 4.0, -5.0]]]])
    path = connect(cls(), [(2, 1, 3)], [(2, 1, 3)])
    assert loss_of(path, student, teacher, [[[0, 0, 255]]]).item() == pytest.approx((1 - ROOT) ** 2)
    maps = student.clone().requires_grad_()
    loss = loss_of(path, maps, teacher, [[[255, 255, 255]]])
    loss.backward()
    assert loss.item() == 0
    assert maps.grad is not None
    assert not maps.grad.any()


def golden_means_image_by_image(cls: type[Path]) -> None:
    # (1, 0) twice in one image, (0, 1) twice in the other: each is its image's mean, all cosines 1.  Teacher likewise.
    maps = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[1.0, 1.0]]]])
    path = connect(cls(), [(2, 1, 2)], [(2, 1, 2)])
    loss = loss_of(path, maps, torch.ones(2, 2, 1, 2), [[[0, 0]], [[0, 0]]])
    assert loss.item() == pytest.approx(0, abs=1e-12)


def golden_sizes(cls: type[Path]) -> None:
    # The mask's nearest pixels to two columns of four are 0 and 2.  The teacher's rows are averaged.
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    teacher = torch.tensor([[[[1.0, 0.0], [5.0, 6.0]], [[0.0, 0.0], [6.0, 6.0]]]])
    path = connect(cls(), [(2, 1, 2)], [(2, 2, 2)])
    masks = [[[1, 0, 1, 255]]]
    found = loss_of(path, student, teacher, masks)
    assert found.item() == pytest.approx((1 - ROOT) ** 2, rel=1e-5)


def golden_short_vectors(cls: type[Path]) -> None:
    # A student of length 5e-7: the vectors and their mean are divided by 1e-6, each cosine is a quarter.
    path = connect(cls(), [(1, 1, 2)], [(1, 1, 2)])
    found = loss_of(path, torch.full((1, 1, 1, 2), 5e-7), torch.ones(1, 1, 1, 2), [[[0, 0]]])
    assert found.item() == pytest.approx(0.75**2)


def golden_last_map_alone(cls: type[Path]) -> None:
    path = connect(cls(), [(3, 4, 4), (5, 2, 2)], [(4, 4, 4), (6, 2, 2)])
    assert path.layers == ("s1",)
    assert list(path.parameters()) == []


GOLDENS = {
    "IFVD": (
        golden_two_positions_of_a_class,
        golden_not_known,
        golden_means_image_by_image,
        golden_sizes,
        golden_short_vectors,
        golden_last_map_alone,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Position by position, with the masks of `batch_of`."""
    losses = {}
    for pair in path.pairs:
        own, other = naive_pooled_alike(student[pair.student].double().tolist(), teacher[pair.teacher].tolist())
        masks = batch_of(len(own), path).classes.tolist()
        squares = []
        for one, two, mask in zip(own, other, masks, strict=True):
            s, t = (_typicality(sample, mask) for sample in (one, two))
            squares += [(s[place] - t[place]) ** 2 for place in s]
        losses[pair.layer] = sum(squares) / max(len(squares), 1)
    return losses


def _typicality(sample: list[list[list[float]]], mask: list[list[int]]) -> dict[tuple[int, int], float]:
    """Return the cosine of each known position with the mean of its class."""
    height, width = len(sample[0]), len(sample[0][0])
    classes = {
        (y, x): mask[y * len(mask) // height][x * len(mask[0]) // width] for y in range(height) for x in range(width)
    }
    found = {}
    for (y, x), label in classes.items():
        if label == 255:
            continue
        places = [place for place, other in classes.items() if other == label]
        mean = [sum(plane[v][u] for v, u in places) / len(places) for plane in sample]
        value = [plane[y][x] for plane in sample]
        lengths = [max(math.sqrt(sum(v * v for v in vector)), 1e-6) for vector in (mean, value)]
        found[y, x] = sum(a * b for a, b in zip(mean, value, strict=True)) / lengths[0] / lengths[1]
    return found


@pytest.mark.parametrize("size", [(4, 6), (7, 3), (1, 9)])
def test_maps_of_any_size_agree_with_loops(size: tuple[int, int]) -> None:
    case = make_case("IFVD", student=[(5, *size)], teacher=[(3, 6, 6)])
    wanted = reference(case.path, case.student, case.teacher)["s0"]
    assert wanted > 0
    assert case.loss().item() == pytest.approx(wanted, rel=1e-9)


def test_scale_does_not_count() -> None:
    case = make_case("IFVD")
    before = case.loss().item()
    case.student["s1"] = 7 * case.student["s1"]
    assert case.loss().item() == pytest.approx(before, rel=1e-9)


@pytest.mark.parametrize("labelled", ["images", "objects"])
def test_it_needs_masks(labelled: str) -> None:
    sides = [make_probe(side, [(3, 2, 2)], labelled=labelled) for side in "st"]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=rf"^IFVD reads the classes of pixels, but in this task {labelled} have them"):
        IFVD().connect(*sides)


MUTANTS = {
    "IFVD": [
        ("pooled_alike(student, teacher)", "student, teacher.amax(2, keepdim=True)"),
        ("* known[:, :, None]", ""),
        (".square(), known)", ".square(), None)"),
        (".square(), known)", ".abs(), known)"),
        ("keepdim=True).clamp_min(1)", "keepdim=True).clamp_min(9)"),
        ("(unit_positions(maps) * own).sum(dim=1)", "(maps.flatten(2) * own).sum(dim=1)"),
        ("unit_positions(means) @", "means @"),
        ("only_last = True", "only_last = False"),
        ("EPSILON = 1e-6", "EPSILON = 1e-12", "distill.paths.affinities"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
