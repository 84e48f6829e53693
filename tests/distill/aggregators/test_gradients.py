"""The gradients of task and paths apart from each other: against what autograd says, and on two ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from on_ranks import on_ranks
from torch import Tensor, nn

from distill.aggregators import Losses
from distill.aggregators.gradients import SharedGradients, TapGradients, cosines


def shared_example() -> tuple[Tensor, Tensor, list[Tensor]]:
    """Two parameters, `x = (1, 2)` and `y = 3`: task `x0 x1 + y`, paths `x0^2` and `4 y - x1`."""
    x = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[3.0]], dtype=torch.float64, requires_grad=True)
    return x.prod() + y.sum(), torch.stack([x[0] ** 2, 4 * y.sum() - x[1]]), [x, y]


def equal(found: Tensor, wanted: list[Any]) -> bool:
    return found.tolist() == wanted


def golden_rows(make: Callable[..., SharedGradients]) -> None:
    # d task = (x1, x0, 1) = (2, 1, 1); d x0^2 = (2, 0, 0); d (4 y - x1) = (0, -1, 4).
    gradients = make(*shared_example())
    assert equal(gradients.rows(), [[2, 1, 1], [2, 0, 0], [0, -1, 4]])
    assert not gradients.rows().requires_grad


def golden_products(make: Callable[..., SharedGradients]) -> None:
    # Of the rows above: 2*2 = 4, -1 + 4 = 3, 0; squared lengths 6, 4, 17.
    gradients = make(*shared_example())
    assert equal(gradients.gram(), [[6, 4, 3], [4, 4, 0], [3, 0, 17]])
    assert equal(gradients.against_task(), [[4, 6, 4], [3, 6, 17]])


def golden_bend(make: Callable[..., SharedGradients]) -> None:
    task, paths, (x, y) = shared_example()
    bend = make(task, paths, [x, y]).bend(torch.tensor([0.5, -1.0, 7.0], dtype=torch.float64))
    assert bend.item() == 0
    (task + paths.sum() + bend).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert y.grad is not None
    assert equal(x.grad, [0.5, -1.0])
    assert equal(y.grad, [[7.0]])


def golden_mean_over_ranks(make: Callable[..., SharedGradients]) -> None:
    # The mean over all ranks is twice this rank's: the bend makes up for the mean, so that the mean is the direction.
    task, paths, (x, y) = shared_example()
    gradients = make(task, paths, [x, y])
    with mock.patch("distill.distributed.mean_", lambda values: values.mul_(2)):
        assert equal(gradients.rows(), [[4, 2, 2], [4, 0, 0], [0, -2, 8]])
    (task + paths.sum() + gradients.bend(torch.zeros(3).double())).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert equal(x.grad, [4 - 8, 0 - 0])  # its own sum (4, 0, 5) less the mean's (8, 0, 10)


def golden_tap_products(make: Callable[..., TapGradients]) -> None:
    # Places u = (1, 2) and v = 3: task u0 u1 v, paths u0 + u1 at u and v^2 at v.
    # At u: d task = (v u1, v u0) = (6, 3), d path = (1, 1): 9, 45, 2.  At v: d task = 2, d path = 6: 12, 4, 36.
    u = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    v = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    found = make(u.prod() * v, torch.stack([u.sum(), v**2]), [[u], [v]]).against_task()
    assert equal(found, [[9, 45, 2], [12, 4, 36]])
    assert not found.requires_grad


def golden_tap_mean_over_ranks(make: Callable[..., TapGradients]) -> None:
    u = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    with mock.patch("distill.distributed.mean", lambda values: 3 * values.detach()):
        assert equal(make(u.prod(), u.sum()[None], [[u]]).against_task(), [[9, 15, 6]])


def golden_tap_products_of_several_places(make: Callable[..., TapGradients]) -> None:
    # As above, but both paths act in both places: d path = 0 where one has no gradient.
    u = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    v = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    found = make(u.prod() * v, torch.stack([u.sum(), u.sum() + v**2]), [[u, v]] * 2).against_task()
    assert equal(found, [[9 + 0, 45 + 4, 2 + 0], [9 + 12, 45 + 4, 2 + 36]])


GOLDENS = {
    "SharedGradients": (golden_rows, golden_products, golden_bend, golden_mean_over_ranks),
    "TapGradients": (golden_tap_products, golden_tap_products_of_several_places, golden_tap_mean_over_ranks),
}


@pytest.mark.parametrize("golden", GOLDENS["SharedGradients"])
def test_shared_golden_values(golden: Callable[[Any], None]) -> None:
    golden(SharedGradients)


@pytest.mark.parametrize("golden", GOLDENS["TapGradients"])
def test_tap_golden_values(golden: Callable[[Any], None]) -> None:
    golden(TapGradients)


class Net(nn.Module):
    """Two shared layers, and a path with an adapter of its own and one without."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second, self.adapter = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)

    def losses(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.first(inputs).tanh()
        outputs = self.second(hidden)
        paths = torch.stack([self.adapter(hidden).square().mean(), (outputs - 1).abs().mean()])
        return outputs.square().mean(), paths, hidden

    def shared(self) -> list[Tensor]:
        return [*self.first.parameters(), *self.second.parameters()]


def inputs(number: int = 6, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(number, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_rows_are_what_backward_gives_and_leave_the_gradients_alone() -> None:
    net = Net().double()
    task, paths, _ = net.losses(inputs())
    rows = SharedGradients(task, paths, net.shared()).rows()
    assert all(parameter.grad is None for parameter in net.parameters())
    for number in range(3):
        net.zero_grad()
        task, paths, _ = net.losses(inputs())
        (task, *paths.unbind())[number].backward()  # type: ignore[attr-defined]
        wanted = torch.cat(
            [torch.zeros(p.numel()).double() if p.grad is None else p.grad.flatten() for p in net.shared()]
        )
        torch.testing.assert_close(rows[number], wanted)


def test_rows_have_the_type_that_holds_all_gradients() -> None:
    parameters = [torch.ones(1, requires_grad=True), torch.ones(1, dtype=torch.float64, requires_grad=True)]
    task = parameters[0].sum() / 3 + parameters[1].sum() / 3
    rows = SharedGradients(task, torch.zeros(0), parameters).rows()
    assert rows.dtype == torch.float64
    assert rows[0, 1].item() == 1 / 3


def test_bend_makes_the_direction_in_what_is_shared_and_leaves_the_adapter_its_own() -> None:
    net, plain = Net().double(), Net().double()
    task, paths, _ = net.losses(inputs())
    gradients = SharedGradients(task, paths, net.shared())
    direction = torch.randn(gradients.rows().shape[1], generator=torch.Generator().manual_seed(2)).double()
    (task + paths.sum() + gradients.bend(direction)).backward()
    torch.testing.assert_close(torch.cat([p.grad.flatten() for p in net.shared()]), direction)  # type: ignore[union-attr]
    task, paths, _ = plain.losses(inputs())
    (task + paths.sum()).backward()
    for ours, theirs in zip(net.adapter.parameters(), plain.adapter.parameters(), strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


def test_autocast_takes_no_digits() -> None:
    net = Net()
    task, paths, hidden = net.losses(inputs().float())
    outside = SharedGradients(task, paths, net.shared())
    direction = torch.linspace(-1, 1, outside.rows().shape[1])
    with torch.autocast("cpu", torch.bfloat16):
        inside = SharedGradients(task, paths, net.shared())
        assert torch.equal(inside.gram(), outside.gram())
        assert torch.equal(inside.against_task(), outside.against_task())
        taps = TapGradients(task, paths, [[hidden]] * 2).against_task()
        bend = inside.bend(direction)
    assert torch.equal(taps, TapGradients(task, paths, [[hidden]] * 2).against_task())
    (task + paths.sum() + bend).backward()
    found = torch.cat([p.grad.flatten() for p in net.shared()])  # type: ignore[union-attr]
    torch.testing.assert_close(found, direction, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e15])
def test_cosines_do_not_depend_on_the_size_of_a_loss(scale: float) -> None:
    net = Net()
    task, paths, hidden = net.losses(inputs().float())
    for kind in (lambda p: SharedGradients(task, p, net.shared()), lambda p: TapGradients(task, p, [[hidden]] * 2)):
        torch.testing.assert_close(
            cosines(kind(scale * paths).against_task()), cosines(kind(paths).against_task()), rtol=1e-5, atol=1e-6
        )


def test_cosines_by_hand() -> None:
    found = cosines(torch.tensor([[3.0, 9.0, 4.0], [-8.0, 4.0, 16.0], [9.0, 4.0, 4.0], [0.0, 4.0, 0.0]]))
    assert found.tolist() == [0.5, -1.0, 1.0, 0.0]


def test_a_loss_that_reaches_nothing_has_a_gradient_of_zero() -> None:
    net = Net()
    task, paths, hidden = net.losses(inputs().float())
    constant = torch.stack([paths.detach()[0], paths.detach()[1]])
    assert not SharedGradients(task, constant, net.shared()).rows()[1:].any()
    assert TapGradients(task, constant, [[hidden]] * 2).against_task()[:, [0, 2]].eq(0).all()
    frozen = torch.ones(3)
    assert TapGradients(task, paths, [[frozen]] * 2).against_task().eq(0).all()


def test_nothing_is_computed_before_anyone_asks_and_once_then() -> None:
    net = Net()
    task, paths, hidden = net.losses(inputs().float())
    with mock.patch("torch.autograd.grad", side_effect=torch.autograd.grad) as grad:
        shared, taps = SharedGradients(task, paths, net.shared()), TapGradients(task, paths, [[hidden]] * 2)
        assert grad.call_count == 0
        for _ in range(2):
            shared.gram()
            shared.against_task()
            shared.bend(shared.rows()[0])
        assert grad.call_count == 3
        taps.against_task()
        taps.against_task()
        assert grad.call_count == 3 + 3  # the task's gradient in all places at once


def test_without_paths() -> None:
    net = Net()
    task, _, _ = net.losses(inputs().float())
    shared = SharedGradients(task, torch.zeros(0), net.shared())
    assert shared.against_task().shape == TapGradients(task, torch.zeros(0), []).against_task().shape == (0, 3)
    assert shared.gram().shape == (1, 1)


def measure(part: slice) -> dict[str, Tensor]:
    net = Net().double()
    batch = inputs(8)
    batch[4:] *= 3  # the ranks see different losses
    task, paths, hidden = net.losses(batch[part])
    shared = SharedGradients(task, paths, net.shared())
    taps = TapGradients(task, paths, [[hidden]] * 2)
    direction = torch.linspace(-1, 1, shared.rows().shape[1], dtype=torch.float64)
    cosine = cosines(taps.against_task())
    (task + paths.sum() + shared.bend(direction)).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in net.shared()])  # type: ignore[union-attr]
    if dist.is_initialized():
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
    return {
        "rows": shared.rows(),
        "gram": shared.gram(),
        "shared": shared.against_task(),
        "taps": cosine,
        "products": taps.against_task(),
        "gradient": gradient,
        "direction": direction,
    }


def work(rank: int) -> dict[str, Tensor]:
    return measure(slice(4 * rank, 4 * rank + 4))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    return on_ranks(work, tmp_path_factory.mktemp("gradients"))


def test_two_ranks_find_what_one_process_finds_in_the_whole_batch(ranks: list[dict[str, Tensor]]) -> None:
    whole = measure(slice(None))
    for name in ("rows", "gram", "shared", "gradient", "products"):
        assert torch.equal(ranks[0][name], ranks[1][name]), name
    for name in ("rows", "gram", "shared", "gradient", "taps"):
        torch.testing.assert_close(ranks[0][name], whole[name], rtol=1e-10, atol=1e-12)
    # Means over half the samples have twice the gradient in each, on half of them: twice the products.
    torch.testing.assert_close(ranks[0]["products"], 2 * whole["products"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ranks[0]["gradient"], whole["direction"], rtol=1e-9, atol=1e-11)


def test_losses_give_the_gradients_in_parameters_that_were_asked_for() -> None:
    net = Net()
    task, paths, hidden = net.losses(inputs().float())
    shared, taps = SharedGradients(task, paths, net.shared()), TapGradients(task, paths, [[hidden]] * 2)
    losses = Losses(task, paths, ("a", "b"), 0.0, {"last": shared, "taps": taps})
    assert losses.shared("last") is shared
    with pytest.raises(ValueError, match="scope 'all' must be declared in needs; those that were: last, taps"):
        losses.shared("all")
    with pytest.raises(ValueError, match="must be asked for in scope 'last' or 'all', found 'taps'"):
        taps.in_parameters()


def test_tiny_gradients_are_told_from_none() -> None:
    x = torch.tensor([1.0, -1.0], requires_grad=True)
    found = SharedGradients(x.sum() * 1e-30, (x * 1e-35).sum()[None], [x]).against_task()
    assert found[0, 2].item() == pytest.approx(2e-70, rel=1e-5)
    assert math.isclose(cosines(found).item(), 1.0, rel_tol=1e-6)


MUTANTS = {
    "SharedGradients": [
        ("distributed.mean_(rows)", "rows"),
        ("losses = [self._task, *self._paths.unbind()]", "losses = [*self._paths.unbind(), self._task]"),
        (
            "[_inner(path, task), square, _inner(path, path)]) for",
            "[_inner(path, task), _inner(path, path), square]) for",
        ),
        ("direction - self.rows().sum(dim=0)", "direction + self.rows().sum(dim=0)"),
        ("direction - self.rows().sum(dim=0)", "direction - self.rows()[0]"),
        ("(flat - flat.detach())", "flat"),
    ],
    "TapGradients": [
        ("distributed.mean(torch.stack(products))", "torch.stack(products)"),
        (
            "return torch.stack([_inner(path, task), square, _inner(path, path)])",
            "return torch.stack([_inner(path, task), _inner(path, path), square])",
        ),
        ("= _gradients(loss, [place])", "= _gradients(self._task, [place])"),
        ("(each, _inner(each, each))", "(each, _inner(each, each).sqrt())"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
