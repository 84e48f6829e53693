from __future__ import annotations

from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, make_case
from test_affinity import inner, unit_positions
from torch import Tensor

from distill.paths import PairwiseSimilarity, Path


def loss_of(path: Path, student: Any, teacher: Any) -> Tensor:
    """Return the loss between maps `[batch][channel][row][column]`."""
    one, other = (torch.as_tensor(maps, dtype=torch.float64) for maps in (student, teacher))
    loss: Tensor = path({"s0": one}, path.target({"t0": other}), batch_of(len(one)))["s0"]
    return loss


ALIKE = torch.ones(4, 2, 2)
"""Four patches that are all alike, of four channels."""


def golden_four_patches(cls: type[Path]) -> None:
    # Teacher: four channels, the first patch has the first alone, the other patches the second: cosines 1 within and 0
    # between.  Student: all alike.  Of 16 pairs 6 differ by 1: 3/8.  A second sample alike on both sides: mean 3/16.
    first = torch.zeros(4, 2, 2)
    first[0, 0, 0], first[1, 0, 1], first[1, 1] = 2.0, 3.0, 5.0
    path = connect(cls(), [(4, 2, 2)], [(4, 2, 2)])
    student, teacher = torch.stack([ALIKE, 7 * ALIKE]), torch.stack([first, ALIKE])
    assert loss_of(path, student, teacher).item() == pytest.approx(3 / 16)
    assert loss_of(path, teacher, student).item() == pytest.approx(3 / 16)
    cosines = path.target({"t0": first[None]})["s0"]
    wanted = torch.tensor([[1.0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]])
    torch.testing.assert_close(cosines, wanted[None])


def golden_largest_of_each_patch(cls: type[Path]) -> None:
    # A map of 4 x 6 in patches of 2 x 3: of each channel the largest value.  The first patch has (3, 0), by two
    # positions (3, -1) and (-2, 0); all other patches (0, 2).  One channel less than patches: the target is f.
    teacher = torch.full((1, 2, 4, 6), -9.0)
    teacher[0, 0, 1, 2], teacher[0, 1, 1, 2], teacher[0, 0, 0, 0], teacher[0, 1, 0, 0] = 3.0, -1.0, -2.0, 0.0
    for y, x in ((0, 3), (3, 0), (2, 5)):
        teacher[0, 0, y, x], teacher[0, 1, y, x] = 0.0, 2.0
    path = connect(cls(), [(4, 2, 2)], [(2, 4, 6)])
    target = path.target({"t0": teacher})["s0"]
    torch.testing.assert_close(target, torch.tensor([[[1.0, 0, 0, 0], [0, 1, 1, 1]]]))
    assert loss_of(path, ALIKE[None], teacher).item() == pytest.approx(6 / 16)


def golden_number_of_patches(cls: type[Path]) -> None:
    # Three by three patches of one position each, signs + but for one -: 16 of 81 pairs differ by 2.
    teacher = torch.ones(1, 1, 3, 3)
    teacher[0, 0, 1, 2] = -4.0
    path = connect(cls(nodes=3), [(4, 2, 2)], [(1, 3, 3)])
    assert loss_of(path, ALIKE[None], teacher).item() == pytest.approx(64 / 81)


def golden_short_vectors(cls: type[Path]) -> None:
    # The first patch has length 5e-7, which is divided by 1e-6: .25 with itself, .5 with the three others.
    student = ALIKE.double() / 2
    student[:, 0, 0] = 2.5e-7
    path = connect(cls(), [(4, 2, 2)], [(4, 2, 2)])
    assert loss_of(path, student[None], ALIKE[None]).item() == pytest.approx((0.75**2 + 6 * 0.5**2) / 16)


def golden_last_map_alone(cls: type[Path]) -> None:
    path = connect(cls(), [(3, 4, 4), (5, 2, 2)], [(4, 4, 4), (6, 2, 2)])
    assert path.layers == ("s1",)
    assert list(path.parameters()) == []


GOLDENS = {
    "PairwiseSimilarity": (
        golden_four_patches,
        golden_largest_of_each_patch,
        golden_number_of_patches,
        golden_short_vectors,
        golden_last_map_alone,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Pair of patches by pair of patches."""
    losses = {}
    for pair in path.pairs:
        squares = []
        sides = zip(student[pair.student].double().tolist(), teacher[pair.teacher].double().tolist(), strict=True)
        for one, two in sides:
            s, t = (unit_positions([_largest(plane, path.nodes) for plane in sample]) for sample in (one, two))
            for i in range(len(s)):
                squares += [(inner(s[i], s[j]) - inner(t[i], t[j])) ** 2 for j in range(len(s))]
        losses[pair.layer] = sum(squares) / len(squares)
    return losses


def _largest(plane: list[list[float]], nodes: int) -> list[list[float]]:
    """Return the largest value of each patch; those of sizes that do not divide overlap by one."""

    def patch(node: int, size: int) -> range:
        return range(node * size // nodes, -(-(node + 1) * size // nodes))

    rows, columns = len(plane), len(plane[0])
    return [
        [max(plane[y][x] for y in patch(i, rows) for x in patch(j, columns)) for j in range(nodes)]
        for i in range(nodes)
    ]


@pytest.mark.parametrize("nodes", [2, 3, 5])
@pytest.mark.parametrize("teacher", [(3, 4, 7), (12, 6, 2), (30, 5, 5)])
def test_any_number_of_patches_agrees_with_loops(nodes: int, teacher: tuple[int, int, int]) -> None:
    case = make_case("PairwiseSimilarity", student=[(5, 3, 8)], teacher=[teacher])
    path = PairwiseSimilarity(nodes=nodes)
    connect(path, [(5, 3, 8)], [teacher])
    case.path = path
    assert case.loss().item() == pytest.approx(reference(path, case.student, case.teacher)["s0"], rel=1e-9)
    patches = nodes**2
    assert case.target()["s0"].shape == (3, min(patches, teacher[0]), patches)


def test_where_the_maps_divide_it_is_the_pooling_of_the_authors() -> None:
    # Windows of half the height and width, moved by as much: an independent way to the same patches.
    student, teacher = (torch.randn(2, 6, 8, 12, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    rows = [torch.nn.functional.max_pool2d(maps, (4, 6), (4, 6)).flatten(2) for maps in (student, teacher)]
    own, other = (torch.nn.functional.cosine_similarity(r[:, :, :, None], r[:, :, None], dim=1) for r in rows)
    path = connect(PairwiseSimilarity(), [(6, 8, 12)], [(6, 8, 12)])
    torch.testing.assert_close(loss_of(path, student, teacher).float(), (own - other).square().mean())


@pytest.mark.parametrize("nodes", [1, 0, 2.5, True])
def test_one_patch_has_nothing_to_compare(nodes: Any) -> None:
    with pytest.raises(ValueError, match="nodes must be a whole number of at least 2, found"):
        PairwiseSimilarity(nodes=nodes)


MUTANTS = {
    "PairwiseSimilarity": [
        ("F.adaptive_max_pool2d", "F.adaptive_avg_pool2d"),
        ("nodes: int = 2", "nodes: int = 3"),
        ("< self.nodes**2", "<= self.nodes**2"),
        ("F.mse_loss(cosines(patches), target)", "F.mse_loss(cosines(patches), target, reduction='sum')"),
        ("F.mse_loss(cosines(patches), target)", "F.mse_loss(cosines(patches), -target)"),
        ("affinity_distance(patches, target)", "affinity_distance(patches, -target) * 0.5"),
        ("only_last = True", "only_last = False"),
        ("dim=1, eps", "dim=2, eps", "distill.paths.affinities"),
        ("EPSILON = 1e-6", "EPSILON = 1e-12", "distill.paths.affinities"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
