from __future__ import annotations

import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from path_cases import Case, Largest, make_case
from point_cases import Points, connected, inner, loss_between, loss_of_connected, maps_of, means, slopes
from torch import Tensor

from distill.paths import Path, RKDAngle, RKDDistance, rkd

APART: Points = [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]
"""Three points as far from each other: all relative distances 1, all cosines 1/2."""
NAMES = ["RKDDistance", "RKDAngle"]


def golden_distances(cls: type[Path]) -> None:
    # 0, 1 and 3 on a line: distances 1, 3, 2, mean 2: 1/2, 3/2, 1.  Against 1, 1, 1: Huber 1/8, 1/8, 0, each twice in
    # nine pairs: 1/18.
    assert loss_between(cls(), [[0.0], [1], [3]], APART).item() == pytest.approx(1 / 18, rel=1e-12)


def golden_distances_far_off(cls: type[Path]) -> None:
    # 0, 1, 10: distances 1, 10, 9 over 20/3: .15, 1.5, 1.35.  0, 10, 1: 10, 1, 9: 1.5, .15, 1.35.
    # Two differ by 1.35: Huber .85, each twice in nine pairs: 3.4 / 9.
    loss = loss_between(cls(), [[0.0], [1], [10]], [[0.0], [10], [1]])
    assert loss.item() == pytest.approx(3.4 / 9, rel=1e-12)


def golden_distances_of_equal_images(cls: type[Path]) -> None:
    # 0, 0, 4: the mean of the positive distances is 4: 0, 1, 1.  One pair differs by 1 from 1: Huber 1/2, twice: 1/9.
    student = maps_of([[0.0], [0], [4]]).requires_grad_()
    loss = loss_of_connected(connected(cls(), [[0.0]], APART), student, maps_of(APART))
    assert loss.item() == pytest.approx(1 / 9, rel=1e-12)
    # The equal images do not push each other: what is left of the gradient is the scale's, and that is none in all.
    (gradient,) = torch.autograd.grad(loss, [student])
    assert gradient.abs().max().item() == pytest.approx(0, abs=1e-12)


def golden_slope_of_distances(cls: type[Path]) -> None:
    # The gradient along a direction is the difference of the loss at both sides.
    student, teacher = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, wanted = slopes(connected(cls(), [[0.0] * 3], [[0.0] * 3]), 10 * student, teacher)
    assert found == pytest.approx(wanted, rel=1e-6)


def golden_angles(cls: type[Path]) -> None:
    # A right angle at the first image, two of 45 degrees: cosines 0, 1/sqrt2, 1/sqrt2; against 1/2 each.
    # Each stands in two of 27 triplets; those that name an image twice agree (0 or 1).
    # Huber: 2 * 1/8 + 4 * (1/sqrt2 - 1/2)^2 / 2 = 1/4 + 2 (3/4 - 1/sqrt2) = 7/4 - sqrt2.
    loss = loss_between(cls(), [[0.0, 0], [1, 0], [0, 1]], APART)
    assert loss.item() == pytest.approx((7 / 4 - math.sqrt(2)) / 27, rel=1e-12)


def golden_angles_far_off(cls: type[Path]) -> None:
    # On a line cosines are -1 for the one in the middle, else 1.  0, 1, 3: the second; 1, 0, 3: the first.
    # Both differ by 2: Huber 3/2, each in two of 27 triplets: 6 / 27.
    loss = loss_between(cls(), [[0.0], [1], [3]], [[1.0], [0], [3]])
    assert loss.item() == pytest.approx(6 / 27, rel=1e-12)


def golden_angles_of_equal_images(cls: type[Path]) -> None:
    # (0), (0), (1), against cosines of 1/2, and of 1 where i is k.  No direction between the first two: at each of
    # them that cosine is 0 with itself (off by 1: Huber 1/2) and with the third (off by 1/2, in two triplets: 1/4).
    # At the third the other two are in one direction: 1, off by 1/2, in two triplets: 1/4.  3/4 + 3/4 + 1/4.
    student = maps_of([[0.0, 0], [0, 0], [1, 0]]).requires_grad_()
    loss = loss_of_connected(connected(cls(), [[0.0, 0]], APART), student, maps_of(APART))
    assert loss.item() == pytest.approx(7 / 4 / 27, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, [student])
    assert gradient.abs().max().item() <= 1


def golden_slope_of_angles(cls: type[Path]) -> None:
    # The gradient along a direction is the difference of the loss at both sides, also where some differ by above 1.
    student, teacher = torch.randn(2, 6, 2, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found, wanted = slopes(connected(cls(), [[0.0] * 2], [[0.0] * 2]), 10 * student, teacher)
    assert found == pytest.approx(wanted, rel=1e-6)


GOLDENS = {
    "RKDDistance": (
        golden_distances,
        golden_distances_far_off,
        golden_distances_of_equal_images,
        golden_slope_of_distances,
    ),
    "RKDAngle": (
        golden_angles,
        golden_angles_far_off,
        golden_angles_of_equal_images,
        golden_slope_of_angles,
    ),
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair by pair of images, or triplet by triplet, from the differences of the points themselves."""
    relations = _cosines if isinstance(path, RKDAngle) else _relative_distances
    losses = {}
    for pair in path.pairs:
        own, other = (relations(means(maps)) for maps in (student[pair.student], teacher[pair.teacher]))
        losses[pair.layer] = sum(_huber(a - b) for a, b in zip(own, other, strict=True)) / len(own)
    return losses


def _huber(gap: float) -> float:
    return gap * gap / 2 if abs(gap) <= 1 else abs(gap) - 0.5


def _minus(one: list[float], other: list[float]) -> list[float]:
    return [a - b for a, b in zip(one, other, strict=True)]


def _length(vector: list[float]) -> float:
    return math.sqrt(inner(vector, vector))


def _relative_distances(points: Points) -> list[float]:
    distances = [_length(_minus(one, other)) for one, other in product(points, repeat=2)]
    positive = [distance for distance in distances if distance > 0]
    mean = sum(positive) / len(positive) if positive else 1.0
    return [distance / mean for distance in distances]


def _cosines(points: Points) -> list[float]:
    found = []
    for vertex, one, other in product(points, repeat=3):
        a, b = _minus(one, vertex), _minus(other, vertex)
        lengths = _length(a) * _length(b)
        found.append(inner(a, b) / lengths if lengths > 0 else 0.0)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_shifts_rotations_and_scale_change_nothing(name: str) -> None:
    case = make_case(name, batch_size=5)
    generator = torch.Generator().manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64, generator=generator))
    shift = torch.randn(5, 1, 1, dtype=torch.float64, generator=generator)
    features = case.student["s1"]
    moved = {
        "turned": torch.einsum("dc,bchw->bdhw", rotation, features),
        "mirrored": -features,
        "shifted": features + 10 * shift,
        "scaled": 7 * features,
    }
    for kind, maps in moved.items():
        other = Case(case.path, {**case.student, "s1": maps}, case.teacher)
        torch.testing.assert_close(other.loss(), case.loss(), msg=kind)
    stretched = Case(case.path, {**case.student, "s1": features * torch.arange(1, 6)[:, None, None]}, case.teacher)
    assert not torch.isclose(stretched.loss(), case.loss())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_fewer_than_three_images_cost_nothing(name: str, batch_size: int) -> None:
    case = make_case(name, batch_size=batch_size)
    features = case.student["s1"].requires_grad_()
    loss = case.loss()
    (gradient,) = torch.autograd.grad(loss, [features])
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert gradient.abs().max().item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_and_nearly_equal_images_have_a_moderate_gradient(name: str, dtype: torch.dtype) -> None:
    case = make_case(name, batch_size=6, dtype=dtype)
    features = 5 + case.student["s1"]
    features[3] = features[0]
    features[4] = features[1] * (1 + 2**-20)
    case.student["s1"] = features.requires_grad_()
    case.loss().backward()
    # The direction between the nearly equal ones turns by 1 / distance, about 1e6 / 5, in a share of the triplets.
    assert features.grad.abs().max() < (1 if name == "RKDDistance" else 1e5)
    assert features.grad[3].abs().max() < 1


def _plain_angles(rows: Tensor) -> Tensor:
    unit = F.normalize(rows[None] - rows[:, None], dim=2)
    return unit @ unit.mT


def _plain_distances(rows: Tensor) -> Tensor:
    distances = torch.linalg.vector_norm(rows[None] - rows[:, None] + torch.eye(len(rows))[:, :, None], dim=2)
    distances = distances * (1 - torch.eye(len(rows)))
    return distances / distances[distances > 0].mean()


@pytest.mark.parametrize(("name", "relations"), [("RKDDistance", _plain_distances), ("RKDAngle", _plain_angles)])
def test_value_and_gradient_agree_with_the_form_of_all_differences(name: str, relations) -> None:
    case = make_case(name, student=[(7, 2, 3)], teacher=[(3, 3, 2)], batch_size=9)
    features = case.student["s0"].requires_grad_()
    plain = F.smooth_l1_loss(relations(features.mean((2, 3))), relations(case.teacher["t0"].mean((2, 3))))
    (wanted,) = torch.autograd.grad(plain, [features])
    loss = case.loss()
    (found,) = torch.autograd.grad(loss, [features])
    torch.testing.assert_close(loss, plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("chunk", [1, 200, 81 * 4])
def test_vertices_looked_at_in_turns_give_the_same(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time, two at a time, four at a time and a single one left over."""
    case = make_case("RKDAngle", batch_size=9)
    features = case.student["s1"].requires_grad_()
    before = case.loss()
    (wanted,) = torch.autograd.grad(before, [features])
    monkeypatch.setitem(rkd.CHUNKS, "cpu", chunk)
    after = case.loss()
    (found,) = torch.autograd.grad(after, [features])
    torch.testing.assert_close(after, before, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_close_to_float64_where_the_features_are_far_from_the_origin(name: str) -> None:
    """Inner products of such features differ in their last digits alone."""
    case = make_case(name, batch_size=8, dtype=torch.float32)
    case.student["s1"] = (100 + 0.1 * case.student["s1"]).requires_grad_()
    loss = case.loss()
    (gradient,) = torch.autograd.grad(loss, [case.student["s1"]])
    sides = ({tap: value.detach().double() for tap, value in side.items()} for side in (case.student, case.teacher))
    exact = Case(case.path, *sides)
    exact.student["s1"].requires_grad_()
    wanted = exact.loss()
    (slope,) = torch.autograd.grad(wanted, [exact.student["s1"]])
    # A mean of float32 numbers near 100 is off by up to 1e-5, of distances near 0.1.
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-2)
    torch.testing.assert_close(gradient.double(), slope, rtol=0, atol=1e-2 * slope.abs().max().item())


@pytest.mark.parametrize(("name", "largest"), [("RKDDistance", 24 * 64), ("RKDAngle", 24 * 24 * 5)])
def test_no_tensor_of_all_differences_is_made(name: str, largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(rkd.CHUNKS, "cpu", 24 * 24 * 5)
    case = make_case(name, student=[(64, 1, 1)], teacher=[(64, 1, 1)], batch_size=24, dtype=torch.float32)
    case.student["s0"].requires_grad_()
    with Largest() as seen:
        case.loss().backward()
    assert seen.numel == largest


def test_nothing_is_learned_and_each_worker_is_alone_unless_told() -> None:
    for kind in (RKDDistance, RKDAngle):
        assert kind.batch_dependent
        assert not kind().gather
        assert not list(make_case(kind.__name__).path.parameters())


MUTANTS = {
    "RKDDistance": [
        (
            "F.smooth_l1_loss(_relative(_distances(own)), _relative(",
            "F.mse_loss(_relative(_distances(own)), _relative(",
        ),
        ("F.smooth_l1_loss(_relative(_distances(own)), _relative(", "F.l1_loss(_relative(_distances(own)), _relative("),
        ("_relative(_distances(other)))", "_relative(_distances(other)), beta=2.0)"),
        ("_relative(_distances(other)))", "_relative(_distances(other)), reduction='sum')"),
        ("_relative(_distances(own))", "_distances(own)"),
        ("distances.sum() / (distances > 0).sum().clamp_min(1)", "distances.mean()"),
        ("distances.sum() / (distances > 0).sum().clamp_min(1)", "distances.amax()"),
        ("mean.clamp_min(EPSILON)", "mean.detach().clamp_min(EPSILON)"),
        ("gradients[0] * _inverse_root(squares)", "gradients[0] * squares.sqrt()"),
        ("squares.rsqrt()", "squares.reciprocal()"),
        ("weights + weights.mT", "weights"),
        ("* rows - weights @ rows", "* rows + weights @ rows"),
        ("weights.sum(dim=1, keepdim=True)", "weights.mean(dim=1, keepdim=True)"),
        (".masked_fill(squares == 0, 0)", ""),
        ("EQUAL = 2.0**-46", "EQUAL = 0.5"),
        ("gram, alpha=2)", "gram, alpha=1)"),
        ("return rows - rows.mean(dim=0)", "return rows - rows.mean(dim=1, keepdim=True)"),
    ],
    "RKDAngle": [
        (".clamp_(-1, 1)", ""),
        (".clamp_(-1, 1)", ".clamp_(-2, 2)"),
        ("F.smooth_l1_loss(cosines,", "F.mse_loss(cosines,"),
        ("F.smooth_l1_loss(cosines,", "F.smooth_l1_loss(-cosines,"),
        ("teacher_cosines, reduction", "teacher_cosines, beta=2.0, reduction"),
        ("across - pull.sum(dim=0)", "across + pull.sum(dim=0)"),
        ("across - pull.sum(dim=0)", "across - pull.mean(dim=0)"),
        ("pull.sum(dim=2) - turn", "pull.sum(dim=2) + turn"),
        ("cosines.mul_(slope)", "slope"),
        ("* legs.square()", "* legs"),
        ("slope.mul_(legs[:, :, None]).mul_(legs[:, None])", "slope * legs[:, :, None]"),
        ("2 * torch.cat(along) + across", "2 * torch.cat(along)"),
        ("2 * torch.cat(along) + across", "torch.cat(along) + across"),
        ("by_square / count**3", "by_square / count**2"),
        ("rows) / scale", "rows)"),
        ("(loss / count**3)", "(loss / count**2)"),
        ("gradients[0] * gradient", "gradient.abs()"),
        (".sub_(sides)", ".add_(sides)"),
        ("return squares / 2,", "return squares,"),
        (".masked_fill(squares == 0, 0)", ".masked_fill(squares == 0, 1e9)"),
        ("EQUAL = 2.0**-46", "EQUAL = 0.5"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
