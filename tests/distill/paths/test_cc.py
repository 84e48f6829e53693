from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from path_cases import Case, make_case
from point_cases import Points, connected, inner, loss_between, loss_of_connected, maps_of, means
from torch import Tensor, nn

from distill.paths import CC, Path
from distill.paths.base import key

STUDENT: Points = [[3.0, 4], [2, 0]]
"""Cosine .6."""
TEACHER: Points = [[1.0, 0], [0, 7]]
"""Cosine 0."""


def plain(path: Path, student: Points = STUDENT, teacher: Points = TEACHER) -> Path:
    """Connect a path whose embeddings then do nothing."""
    connected(path, student, teacher)
    for embeddings in (path.student_embeddings, path.teacher_embeddings):
        for embedding in embeddings.values():
            nn.init.eye_(embedding.weight)
            nn.init.zeros_(embedding.bias)
    return path


def golden_two_images(cls: type[Path]) -> None:
    # gamma .4, order 2: C = exp(-.8) (1 + .8 c + .32 c^2).  Cosine .6 against 0: the difference is .48 + .1152 =
    # .5952, times exp(-.8).  Each image agrees with itself: two of four pairs differ.
    loss = loss_of_connected(plain(cls(num_features=2)), maps_of(STUDENT), maps_of(TEACHER))
    assert loss.item() == pytest.approx(0.5952**2 * math.exp(-1.6) / 2, rel=1e-12)


def golden_options(cls: type[Path]) -> None:
    # gamma 1, order 3: exp(-2) (1 + 2 c + 2 c^2 + 4/3 c^3); at .6: 1.2 + .72 + .288 = 2.208.  Order 1: 1.2.
    for order, difference in ((3, 2.208), (1, 1.2)):
        path = plain(cls(num_features=2, gamma=1.0, order=order))
        loss = loss_of_connected(path, maps_of(STUDENT), maps_of(TEACHER))
        assert loss.item() == pytest.approx(difference**2 * math.exp(-4) / 2, rel=1e-12)


def golden_embeddings(cls: type[Path]) -> None:
    # The student's points embedded to (3, 4) + (0, -4) = (3, 0) and (2, -4): cosine 1/sqrt5.
    # The teacher's (1, 0) and (0, 7), the second channel's weight 1/7 and both added up, are (1, 0) and (1, 1):
    # cosine 1/sqrt2.
    path = plain(cls(num_features=2))
    path.student_embeddings[key("s0")].bias.data[1] = -4
    path.teacher_embeddings[key("s0")].weight.data.copy_(torch.tensor([[1, 1 / 7], [0, 1 / 7]], dtype=torch.float64))
    one, other = 1 / math.sqrt(5), 1 / math.sqrt(2)
    difference = 0.8 * (one - other) + 0.32 * (one**2 - other**2)
    loss = loss_of_connected(path, maps_of(STUDENT), maps_of(TEACHER))
    assert loss.item() == pytest.approx(difference**2 * math.exp(-1.6) / 2, rel=1e-12)


def golden_width(cls: type[Path]) -> None:
    path = connected(cls(), [[1.0, 2, 3]], [[1.0, 2]])
    assert path.student_embeddings[key("s0")].weight.shape == (128, 3)
    assert path.teacher_embeddings[key("s0")].weight.shape == (128, 2)


GOLDENS = {"CC": (golden_two_images, golden_options, golden_embeddings, golden_width)}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair by pair of images: the cosine of their embeddings, the series of it, the squared difference."""
    losses = {}
    for pair in path.pairs:
        correlations = []
        for embeddings, maps in (
            (path.student_embeddings, student[pair.student]),
            (path.teacher_embeddings, teacher[pair.teacher]),
        ):
            embedding = embeddings[key(pair.layer)]
            weight, bias = embedding.weight.double().tolist(), embedding.bias.double().tolist()
            rows = [
                [inner(line, point) + shift for line, shift in zip(weight, bias, strict=True)] for point in means(maps)
            ]
            unit = [[value / math.sqrt(inner(row, row)) for value in row] for row in rows]
            correlations.append([[_series(inner(one, other)) for other in unit] for one in unit])
        count = len(correlations[0])
        pairs = [(i, j) for i in range(count) for j in range(count)]
        losses[pair.layer] = sum((correlations[0][i][j] - correlations[1][i][j]) ** 2 for i, j in pairs) / len(pairs)
    return losses


def _series(cosine: float) -> float:
    return math.exp(-0.8) * sum(0.8**power / math.factorial(power) * cosine**power for power in (0, 1, 2))


def test_the_series_is_the_gaussian_kernel() -> None:
    unit = nn.functional.normalize(
        torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    wanted = torch.exp(-0.4 * torch.cdist(unit, unit).square())
    torch.testing.assert_close(CC(order=20)._correlate(unit), wanted, rtol=1e-12, atol=0)


def test_equal_models_with_equal_embeddings_cost_nothing() -> None:
    case = make_case("CC", student=((4, 4, 4), (6, 2, 2)), teacher=((4, 4, 4), (6, 2, 2)))
    case.path.student_embeddings.load_state_dict(case.path.teacher_embeddings.state_dict())
    same = Case(case.path, {f"s{tap[1:]}" if tap else tap: value for tap, value in case.teacher.items()}, case.teacher)
    assert same.loss().item() == 0


def test_embeddings_that_map_all_to_one_point_cost_nothing() -> None:
    """What the docstring warns of: no term of the paper's keeps the embeddings from it."""
    case = make_case("CC")
    for parameter_name, parameter in case.path.named_parameters():
        if parameter_name.endswith("weight"):
            nn.init.zeros_(parameter)
    assert case.loss().item() == pytest.approx(0, abs=1e-30)


def test_both_embeddings_learn() -> None:
    case = make_case("CC")
    case.loss().backward()
    for parameter in case.path.parameters():
        assert parameter.grad.abs().max() > 0
    assert len(list(case.path.parameters())) == 4


def test_lengths_of_the_embeddings_change_nothing() -> None:
    case = make_case("CC")
    before = case.loss()
    for parameter in case.path.student_embeddings.parameters():
        parameter.data *= 3
    torch.testing.assert_close(case.loss(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gamma": 0.0}, "gamma must be a finite number above 0, found 0.0"),
        ({"gamma": math.nan}, "gamma must be a finite number above 0, found nan"),
        ({"order": 0}, "order must be a whole number of at least 1, found 0"),
        ({"order": 2.0}, "order must be a whole number of at least 1, found 2.0"),
        ({"num_features": 0}, "num_features must be a whole number of at least 1, found 0"),
        ({"num_features": True}, "num_features must be a whole number of at least 1, found True"),
    ],
)
def test_options_out_of_bounds_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CC(**options)


def test_each_worker_is_alone_unless_told() -> None:
    assert CC.batch_dependent
    assert not CC().gather
    assert loss_between(CC(), [[1.0, 2]], [[3.0]]).item() == pytest.approx(0, abs=1e-30)


MUTANTS = {
    "CC": [
        ("gamma: float = 0.4", "gamma: float = 0.5"),
        ("order: int = 2", "order: int = 1"),
        ("num_features: int = 128", "num_features: int = 64"),
        ("_embed(self.student_embeddings, layer, pooled(student))", "F.normalize(pooled(student), dim=1)"),
        ("_embed(self.teacher_embeddings, layer, target)", "F.normalize(target, dim=1)"),
        ("F.mse_loss(", "F.l1_loss("),
        ("self._correlate(self.together(other)))", "self._correlate(self.together(other)), reduction='sum')"),
        ("/ math.factorial(power)", ""),
        ("(2 * self.gamma) ** power", "self.gamma**power"),
        ("math.exp(-2 * self.gamma)", "math.exp(-self.gamma)"),
        ("math.exp(-2 * self.gamma) * correlation", "correlation"),
        ("correlation * cosines +", "correlation + cosines *"),
        ("range(self.order, -1, -1)", "range(self.order - 1, -1, -1)"),
        ("F.normalize(cast(Tensor, embeddings[key(layer)](rows)), dim=1)", "embeddings[key(layer)](rows)"),
        ("(rows)), dim=1)", "(rows)), p=1, dim=1)"),
        ("(rows)), dim=1)", "(rows)), dim=0)"),
    ]
}
"""Changes of the source that a golden value notices; see test_mutants."""
