from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from unittest import mock

import pytest
import torch
from naive_maps import Maps, naive_convolution, naive_layers, naive_pooled_alike, positions
from path_cases import batch_of, connect, make_case, same_numbers
from torch import Tensor, nn

from distill.paths import MGD, Path
from distill.paths.base import key


def made_plain(path: Path) -> Path:
    """Let generator and alignment be the identity for positive values."""
    for module in path.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.dirac_(module.weight)
            nn.init.zeros_(module.bias)
    return path


def drawing(*numbers: float) -> Any:
    """Let torch draw these numbers, from the first on whenever it is asked."""

    def rand(shape: Sequence[int], **_: Any) -> Tensor:
        return torch.tensor([numbers[i % len(numbers)] for i in range(math.prod(shape))]).reshape(shape)

    return mock.patch.object(torch, "rand", rand)


def loss_of_row(path: Path, student: list[list[list[float]]], teacher: list[list[list[float]]]) -> float:
    """Return the loss between maps of one row, `[batch][channel][column]`."""
    one, other = (torch.tensor(maps)[:, :, None] for maps in (student, teacher))
    loss: float = path({"s0": one}, path.target({"t0": other}), batch_of(len(one)))["s0"].item()
    return loss


def golden_positions_are_masked(cls: type[Path]) -> None:
    # Draws .4, .5, .6, .1: the first and the last position are masked, in both channels.  The teacher is silent.
    # First channel (1, 2, 3, 4) -> 0, 4, 9, 0; second (1, 1, 1, 1) -> 0, 1, 1, 0.  15 / 8.
    # The second sample draws .9, .2, .2, .2: (6, 1, 1, 1) -> 36, 0, 0, 0, twice: 72 / 8.  Mean of both: 87 / 16.
    path = made_plain(connect(cls(), [(2, 1, 4)], [(2, 1, 4)]))
    student = [[[1.0, 2.0, 3.0, 4.0], [1.0] * 4], [[6.0, 1.0, 1.0, 1.0]] * 2]
    with drawing(0.4, 0.5, 0.6, 0.1, 0.9, 0.2, 0.2, 0.2):
        assert loss_of_row(path, student, [[[0.0] * 4] * 2] * 2) == pytest.approx(87 / 16)


def golden_channels_are_masked(cls: type[Path]) -> None:
    # Draws .4 and .6: the first channel is masked, the second kept, in all positions.  4 and 16 of 4 values: 20 / 4.
    path = made_plain(connect(cls(masked="channels"), [(2, 1, 2)], [(2, 1, 2)]))
    with drawing(0.4, 0.6, 0.9, 0.9):
        assert loss_of_row(path, [[[7.0, 1.0], [2.0, 4.0]]], [[[0.0, 0.0]] * 2]) == pytest.approx(5)


def golden_nothing_is_masked(cls: type[Path]) -> None:
    # (1 - 2)^2 and (3 - 1)^2 in the first sample, nothing in the second: 5 / 4.
    path = made_plain(connect(cls(mask_ratio=0.0), [(1, 1, 2)], [(1, 1, 2)]))
    target = path.target({"t0": torch.tensor([[[[2.0, 1.0]]]])})
    torch.testing.assert_close(target["s0"], torch.tensor([[[[2.0, 1.0]]]]))
    with drawing(0.0, 0.0, 0.0, 0.0):
        found = loss_of_row(path, [[[1.0, 3.0]], [[4.0, 4.0]]], [[[2.0, 1.0]], [[4.0, 4.0]]])
    assert found == pytest.approx(1.25)


def golden_generator_sees_neighbours(cls: type[Path]) -> None:
    # A first kernel of ones over (1, 2, 4), with zeros around: (3, 7, 6).  Squares 9, 49, 36: 94 / 3.
    path = made_plain(connect(cls(mask_ratio=0.0), [(1, 1, 3)], [(1, 1, 3)]))
    nn.init.ones_(path.generators[key("s0")][0].weight)
    assert loss_of_row(path, [[[1.0, 2.0, 4.0]]], [[[0.0] * 3]]) == pytest.approx(94 / 3)


def golden_generator_has_a_relu(cls: type[Path]) -> None:
    # (2, -3) -> ReLU (2, 0) -> a second kernel of -1 and a bias of 1: (-1, 1), as the teacher says.
    path = made_plain(connect(cls(mask_ratio=0.0), [(1, 1, 2)], [(1, 1, 2)]))
    last = [module for module in path.generators[key("s0")] if isinstance(module, nn.Conv2d)][-1]
    last.weight.data.neg_()
    nn.init.ones_(last.bias)
    assert loss_of_row(path, [[[2.0, -3.0]]], [[[-1.0, 1.0]]]) == pytest.approx(0)


def golden_alignment_comes_before_the_mask(cls: type[Path]) -> None:
    # One channel to two: 1 and 2 times the student's 3, plus 1: (4, 7).  The second position is masked, its bias too.
    # The teacher is silent: (16 + 49) / 4.
    path = made_plain(connect(cls(), [(1, 1, 2)], [(2, 1, 2)]))
    path.alignments[key("s0")].weight.data.copy_(torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1))
    nn.init.ones_(path.alignments[key("s0")].bias)
    with drawing(0.6, 0.4):
        assert loss_of_row(path, [[[3.0, 3.0]]], [[[0.0, 0.0]] * 2]) == pytest.approx(65 / 4)


def golden_pools_the_larger_map(cls: type[Path]) -> None:
    # The teacher's four columns, averaged by twos: (2, 5); the student says (2, 3): 4 / 2.
    path = made_plain(connect(cls(mask_ratio=0.0), [(1, 1, 2)], [(1, 1, 4)]))
    assert loss_of_row(path, [[[2.0, 3.0]]], [[[1.0, 3.0, 4.0, 6.0]]]) == pytest.approx(2)


def golden_last_map_alone(cls: type[Path]) -> None:
    path = connect(cls(), [(3, 4, 4), (5, 2, 2)], [(4, 4, 4), (6, 2, 2)])
    assert path.layers == ("s1",)


GOLDENS = {
    "MGD": (
        golden_positions_are_masked,
        golden_channels_are_masked,
        golden_nothing_is_masked,
        golden_generator_sees_neighbours,
        golden_generator_has_a_relu,
        golden_alignment_comes_before_the_mask,
        golden_pools_the_larger_map,
        golden_last_map_alone,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Value by value: align, mask with the numbers that torch draws next, generate, compare."""
    losses = {}
    for pair in path.pairs:
        own: Maps = student[pair.student].double().tolist()
        other: Maps = teacher[pair.teacher].double().tolist()
        own, other = naive_pooled_alike(own, other)
        align = path.alignments[key(pair.layer)]
        if isinstance(align, nn.Conv2d):
            own = naive_convolution(align, own)
        by_position = path.masked == "positions"
        size = (len(own), 1, len(own[0][0]), len(own[0][0][0])) if by_position else (len(own), len(own[0]), 1, 1)
        draws = torch.rand(size).tolist()
        for sample, channel, row, column in positions(own):
            drawn = draws[sample][0][row][column] if by_position else draws[sample][channel][0][0]
            if drawn < path.mask_ratio:
                own[sample][channel][row][column] = 0.0
        made = naive_layers(path.generators[key(pair.layer)], own)
        gaps = [made[b][c][y][x] - other[b][c][y][x] for b, c, y, x in positions(other)]
        losses[pair.layer] = sum(gap * gap for gap in gaps) / len(gaps)
    return losses


def make_path(**options: Any) -> Path:
    """Return a path from three channels to four, and an identity for positive values where the widths agree."""
    return made_plain(connect(MGD(**options), [(4, 6, 6)], [(4, 6, 6)]))


def seen_by_the_generator(path: Path, maps: Tensor) -> Tensor:
    seen = []
    handle = path.generators[key("s0")].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    path({"s0": maps}, {"s0": maps}, batch_of(len(maps)))
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("masked", ["positions", "channels"])
def test_both_kinds_agree_with_the_equation(masked: str) -> None:
    case = make_case("MGD")
    case.path.masked = masked
    with same_numbers():
        wanted = reference(case.path, case.student, case.teacher)
    assert {layer: loss.item() for layer, loss in case.losses().items()} == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("ratio", [0.15, 0.5, 0.65])
def test_the_share_of_masked_positions_is_the_ratio(ratio: float, training: bool) -> None:
    path = make_path(mask_ratio=ratio).train(training)
    with same_numbers():
        seen = seen_by_the_generator(path, torch.ones(400, 4, 6, 6))
    assert set(seen.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(seen, seen[:, :1].expand_as(seen))  # all channels of a position alike
    assert 1 - seen.mean().item() == pytest.approx(ratio, abs=0.02)
    shares = 1 - seen[:, 0].mean(dim=0)  # every position is as likely as any other
    assert (shares - ratio).abs().max() < 0.15


def test_channels_are_masked_as_a_whole() -> None:
    path = make_path(masked="channels")
    with same_numbers():
        seen = seen_by_the_generator(path, torch.ones(400, 4, 6, 6))
    assert torch.equal(seen, seen[:, :, :1, :1].expand_as(seen))
    assert not torch.equal(seen[:, :1], seen[:, 1:2])
    assert 1 - seen.mean().item() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("training", [True, False])
def test_every_step_and_every_sample_has_a_mask_of_its_own(training: bool) -> None:
    path = make_path().train(training)
    maps = torch.ones(2, 4, 6, 6)
    with same_numbers():
        first, second = (seen_by_the_generator(path, maps) for _ in range(2))
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    with same_numbers():
        again = seen_by_the_generator(path, maps)
    assert torch.equal(again, first)


def test_without_masks_the_order_of_the_samples_does_not_count() -> None:
    case = make_case("MGD", batch_size=4)
    masked, order = case.loss(), torch.tensor([2, 0, 3, 1])

    def reordered() -> Tensor:
        moved = [{tap: value[order] for tap, value in side.items()} for side in (case.student, case.teacher)]
        with same_numbers():
            return case.path(moved[0], case.path.target(moved[1]), batch_of(4))["s1"]

    assert not torch.isclose(reordered(), masked)  # the masks stay where they are, the samples move
    case.path.mask_ratio = 0.0
    torch.testing.assert_close(reordered(), case.loss())


def test_a_generator_that_is_the_identity_has_nothing_to_learn() -> None:
    maps = torch.rand(2, 4, 6, 6)
    assert make_path(mask_ratio=0.0)({"s0": maps}, {"s0": maps}, batch_of(2))["s0"].item() == 0
    assert make_path()({"s0": maps}, {"s0": maps}, batch_of(2))["s0"].item() > 0.01


def test_masked_places_send_no_gradient_of_their_own() -> None:
    path = make_path()
    maps = torch.rand(2, 4, 6, 6, requires_grad=True)
    with same_numbers():
        path({"s0": maps}, {"s0": torch.zeros(2, 4, 6, 6)}, batch_of(2))["s0"].backward()
    with same_numbers():
        seen = seen_by_the_generator(path, torch.ones(2, 4, 6, 6))
    assert torch.equal(maps.grad != 0, seen != 0)


def test_no_alignment_where_the_widths_agree() -> None:
    assert sum(isinstance(module, nn.Conv2d) for module in make_path().modules()) == 2
    assert sum(isinstance(module, nn.Conv2d) for module in make_case("MGD").path.modules()) == 3


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 1.5, float("nan"), "0.5"])
def test_mask_ratio_is_a_share(ratio: Any) -> None:
    with pytest.raises(ValueError, match=r"mask_ratio must be .*at least 0.*, found"):
        MGD(mask_ratio=ratio)


def test_masked_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="masked must be one of positions, channels, found 'pixels'"):
        MGD(masked="pixels")  # type: ignore[arg-type]


MUTANTS = {
    "MGD": [
        (">= self.mask_ratio", "> self.mask_ratio"),
        (">= self.mask_ratio", "< self.mask_ratio"),
        (">= self.mask_ratio", ">= 1 - self.mask_ratio / 2"),
        ("aligned * self._mask(aligned)", "aligned"),
        ("aligned * self._mask(aligned)", "aligned / (1 - self.mask_ratio) * self._mask(aligned)"),
        ("aligned * self._mask(aligned)", "self.alignments[key(layer)](student * self._mask(student))"),
        ("F.mse_loss(", "F.l1_loss("),
        ("self._mask(aligned)), target)", "self._mask(aligned)), target, reduction='sum')"),
        ("self._mask(aligned)), target)", "self._mask(aligned)), -target)"),
        ("mask_ratio: float = 0.5", "mask_ratio: float = 0.15"),
        ('masked: Masked = "positions"', 'masked: Masked = "channels"'),
        ('self.masked == "positions"', 'self.masked != "positions"'),
        ("(batch, 1, height, width) if", "(1, 1, height, width) if"),
        ("(batch, 1, height, width) if", "(batch, channels, height, width) if"),
        ("nn.ReLU(),", "nn.Identity(),"),
        (
            "kernel_size=3, padding=1),\n                nn.ReLU(),",
            "kernel_size=1),\n                nn.ReLU(),",
        ),
        ("only_last = True", "only_last = False"),
        ("F.adaptive_avg_pool2d", "F.adaptive_max_pool2d", "distill.paths.sizes"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
