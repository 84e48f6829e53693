from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from on_ranks import on_ranks
from path_cases import SAMPLES, batch_of, connect, make_case, same_numbers
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from distill.batch import Batch, Samples
from distill.paths import CRD, Path

LOG_2 = math.log(2)


def met(cls: type[Path], labels: list[int], *, indices: list[int] | None = None, **options: Any) -> Path:
    """Return a path between features of two channels whose embeddings are these features at unit length."""
    path = connect(cls(dimensions=2, **options), [(2, 1, 1)], [(2, 1, 1)])
    numbers = torch.arange(len(labels)) if indices is None else torch.tensor(indices)
    path.meet(Samples(numbers, torch.tensor(labels)))
    for embedding in (path.embed_student, path.embed_teacher):
        embedding.weight.data = torch.eye(2)
        embedding.bias.data.zero_()
    return path.double()


def step(path: Path, indices: list[int], student: list[list[float]], teacher: list[list[float]]) -> Tensor:
    """Return the loss for these features of these samples; in training the path remembers them."""
    one, other = (torch.tensor(rows, dtype=torch.float64)[:, :, None, None] for rows in (student, teacher))
    batch = Batch(one, torch.zeros(len(one), dtype=torch.int64), torch.tensor(indices))
    return path({"s0": one}, path.target({"t0": other}), batch)["s0"]


def fill(path: Path, student: list[list[float]], teacher: list[list[float]], *, scale: float = 1.0) -> None:
    """Set what the banks of both sides hold."""
    path.bank_student.copy_(scale * torch.tensor(student, dtype=torch.float64))
    path.bank_teacher.copy_(scale * torch.tensor(teacher, dtype=torch.float64))


# The samples 3 and 7 are of two classes: each is the other's only negative, K / N = 1/2.
# With the banks times 0.07 ln 2, exp(<u, V[j]> / 0.07) = 2^<u, V[j]> for the numbers below.
U, V = [[0.0, 1.0], [0.0, 3.0]], [[2.0, 0.0], [1.0, 0.0]]


def golden_two_samples(cls: type[Path]) -> None:
    # Sample 3, u = (1, 0): 2^2 = 4 with itself, 2^1 = 2 with sample 7.  Z = N times their mean = 6: p = 2/3 and 1/3.
    # loss(u) = -log((2/3) / (2/3 + 1/2)) - log((1/2) / (1/3 + 1/2)) = -log(4/7) - log(3/5).
    # v = (0, 1): 2 and 8, Z = 10, p = 1/5 and 4/5: -log((1/5) / (7/10)) - log((1/2) / (13/10)) = -log(2/7) - log(5/13).
    path = met(cls, [0, 1], indices=[3, 7])
    fill(path, U, V, scale=0.07 * LOG_2)
    loss = step(path, [3], [[5.0, 0.0]], [[0.0, 2.0]])
    assert loss.item() == pytest.approx(-math.log(4 / 7 * 3 / 5 * 2 / 7 * 5 / 13), rel=1e-9)
    torch.testing.assert_close(path.log_constants, torch.tensor([6.0, 10.0]).double().log())


def golden_constants_are_those_of_the_first_batch(cls: type[Path]) -> None:
    # The first batch as above: Z = 6 and 10.  Then the banks as they were, and sample 7 with u = (0, 1), v = (0, -1):
    # exp is 1 and 1: p = 1/6 twice, -log((1/6) / (4/6)) - log((1/2) / (4/6)) = -log(1/4) - log(3/4).
    # 1/8 and 1/2: p = 1/80 and 1/20, -log((1/80) / (41/80)) - log((1/2) / (11/20)) = -log(1/41) - log(10/11).
    path = met(cls, [0, 1], indices=[3, 7])
    fill(path, U, V, scale=0.07 * LOG_2)
    step(path, [3], [[5.0, 0.0]], [[0.0, 2.0]])
    fill(path, U, V, scale=0.07 * LOG_2)
    loss = step(path, [7], [[0.0, 2.0]], [[0.0, -3.0]])
    assert loss.item() == pytest.approx(-math.log(1 / 4 * 3 / 4 * 1 / 41 * 10 / 11), rel=1e-9)


def golden_mean_over_the_batch(cls: type[Path]) -> None:
    # Both samples in one batch, the banks all (1, 0) and all features (1, 0): exp is e everywhere, Z = 2 e, p = 1/2.
    # Each loss is -log(1/2) - log(1/2), each sample has two of them: 4 log 2, and so has their mean.
    path = met(cls, [0, 1], temperature=1.0)
    fill(path, [[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2)
    loss = step(path, [0, 1], [[1.0, 0.0]] * 2, [[3.0, 0.0]] * 2)
    assert loss.item() == pytest.approx(4 * LOG_2, rel=1e-9)


def golden_memory_moves(cls: type[Path]) -> None:
    # Momentum 1/2, the default: U[0] = unit((0, 1)/2 + (1, 0)/2), V[0] = unit((2, 0)/2 + (0, 1)/2) = (2, 1) / sqrt 5.
    # Momentum 3/4: U[0] = unit(3/4 (0, 1) + 1/4 (1, 0)) = (1, 3) / sqrt 10, V[0] = unit(3/4 (2, 0) + 1/4 (0, 1))
    # = (6, 1) / sqrt 37.  The other sample's rows stay.
    for options, u, v in (
        ({}, [math.sqrt(0.5)] * 2, [2 / math.sqrt(5), 1 / math.sqrt(5)]),
        ({"momentum": 0.75}, [1 / math.sqrt(10), 3 / math.sqrt(10)], [6 / math.sqrt(37), 1 / math.sqrt(37)]),
    ):
        path = met(cls, [0, 1], indices=[3, 7], **options)
        fill(path, U, V)
        step(path, [3], [[5.0, 0.0]], [[0.0, 2.0]])
        torch.testing.assert_close(path.bank_student, torch.tensor([u, U[1]]).double(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(path.bank_teacher, torch.tensor([v, V[1]]).double(), rtol=1e-6, atol=1e-7)


def golden_a_sample_twice_in_a_batch(cls: type[Path]) -> None:
    # Its last embedding counts, (0, 1) for the student and (0, 2) -> (0, 1) for the teacher, with momentum 0 alone.
    path = met(cls, [0, 1, 0], momentum=0.0)
    fill(path, [[1.0, 0.0]] * 3, [[1.0, 0.0]] * 3)
    step(path, [2, 1, 2], [[-1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]], [[-1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    for bank in (path.bank_student, path.bank_teacher):
        torch.testing.assert_close(bank, torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]).double())


def golden_default_number_of_negatives(cls: type[Path]) -> None:
    # All rows (1, 0), all features (1, 0): p = 1/N for every one.  Either side -log(1 / (1 + K)) - K log(K / (1 + K)),
    # with K = 16384, since 16385 samples are of the other class.
    path = met(cls, [0, 1] * 16385)
    fill(path, [[1.0, 0.0]] * 32770, [[1.0, 0.0]] * 32770)
    loss = step(path, [0], [[1.0, 0.0]], [[1.0, 0.0]])
    number = 16384
    assert loss.item() == pytest.approx(2 * (math.log(1 + number) + number * math.log1p(1 / number)), rel=1e-9)
    assert connect(cls(), [(2, 1, 1)], [(2, 1, 1)]).embed_student.out_features == 128


def golden_negatives_are_of_other_classes(cls: type[Path]) -> None:
    # Rows 0 to 5 of the classes 4, 9, 4, 7, 9, 9: the negatives of each, by hand.  All of them come up.
    path = met(cls, [4, 9, 4, 7, 9, 9])
    others = {0: {1, 3, 4, 5}, 1: {0, 2, 3}, 2: {1, 3, 4, 5}, 3: {0, 1, 2, 4, 5}, 4: {0, 2, 3}, 5: {0, 2, 3}}
    for row, wanted in others.items():
        with same_numbers():
            drawn = path._draw(torch.full((200,), row))
        assert drawn.shape == (200, 3)  # of the largest class there are three, and three others
        assert set(drawn.flatten().tolist()) == wanted


def golden_slope(cls: type[Path]) -> None:
    # The gradient along a direction is the difference of the loss at both sides; of student, teacher and embeddings.
    generator = torch.Generator().manual_seed(0)
    path = met(cls, [0, 1, 2, 0], temperature=0.5)
    features = [torch.randn(3, 2, 1, 1, generator=generator).double().requires_grad_() for _ in range(2)]
    learned = [*features, path.embed_student.weight, path.embed_teacher.weight, path.embed_teacher.bias]
    directions = [torch.randn(value.shape, generator=generator).double() for value in learned]

    def loss() -> Tensor:
        with same_numbers():
            return path({"s0": features[0]}, {"s0": features[1][:, :, 0, 0]}, batch_of(3))["s0"]

    @torch.no_grad()
    def moved(distance: float) -> float:
        for value, direction in zip(learned, directions, strict=True):
            value += distance * direction
        return loss().item()

    loss()  # sets the constants
    path.eval()
    slopes = torch.autograd.grad(loss(), learned)
    found = sum((slope * direction).sum().item() for slope, direction in zip(slopes, directions, strict=True))
    assert found == pytest.approx((moved(1e-5) - moved(-2e-5)) / 2e-5, rel=1e-6)


GOLDENS = {
    "CRD": (
        golden_two_samples,
        golden_constants_are_those_of_the_first_batch,
        golden_mean_over_the_batch,
        golden_memory_moves,
        golden_a_sample_twice_in_a_batch,
        golden_default_number_of_negatives,
        golden_negatives_are_of_other_classes,
        golden_slope,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Sample by sample and negative by negative, for the samples 0, 1, ... of SAMPLES."""
    (pair,) = path.pairs
    labels = SAMPLES.labels.tolist()
    number, drawn = len(labels), len(labels) - max(Counter(labels).values())
    u = _embeddings(path.embed_student, student[pair.student])
    v = _embeddings(path.embed_teacher, teacher[pair.teacher])
    by_class = sorted(range(number), key=lambda row: labels[row])
    negatives = []
    for row, numbers in enumerate(torch.randint(1 << 62, (len(u), drawn)).tolist()):
        others = [other for other in by_class if labels[other] != labels[row]]
        negatives.append([others[value % len(others)] for value in numbers])
    total = 0.0
    for anchors, bank, log_constant in zip(
        (u, v), (path.bank_teacher, path.bank_student), path.log_constants, strict=True
    ):
        rows = bank.double().tolist()
        values = [
            [math.exp(sum(a * b for a, b in zip(anchor, rows[j], strict=True)) / 0.07) for j in (row, *negatives[row])]
            for row, anchor in enumerate(anchors)
        ]
        constant = math.exp(log_constant)
        if math.isinf(constant):
            constant = number * sum(map(sum, values)) / sum(map(len, values))
        for positive, *rest in values:
            total -= math.log(positive / constant / (positive / constant + drawn / number))
            total -= sum(math.log(drawn / number / (value / constant + drawn / number)) for value in rest)
    return {pair.layer: total / len(u)}


def _embeddings(linear: torch.nn.Linear, maps: Tensor) -> list[list[float]]:
    embeddings = []
    for sample in maps.double().tolist():
        pooled = [sum(map(sum, channel)) / (len(channel) * len(channel[0])) for channel in sample]
        values = [
            sum(w * value for w, value in zip(line, pooled, strict=True)) + shift
            for line, shift in zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
        ]
        length = math.sqrt(sum(value * value for value in values))
        embeddings.append([value / length for value in values])
    return embeddings


def test_the_index_names_a_sample_and_not_its_place_in_the_batch() -> None:
    # Of two samples each is the other's only negative, so that nothing is left to chance.
    features = [[[1.0, 2.0], [3.0, -1.0]], [[0.5, 1.0], [-1.0, 2.0]]]
    results = []
    for order in ([0, 1], [1, 0]):
        torch.manual_seed(0)
        path = met(CRD, [0, 1], indices=[3, 7])
        loss = step(path, [[3, 7][i] for i in order], *([side[i] for i in order] for side in features))
        results.append((loss, path.bank_student, path.bank_teacher))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
    torch.manual_seed(0)
    swapped = met(CRD, [0, 1], indices=[3, 7])
    assert not torch.isclose(step(swapped, [7, 3], *features), results[0][0])


def test_each_negative_is_as_likely_as_any_other() -> None:
    path = met(CRD, [0] * 5 + [1] * 3 + [2] * 4, num_negatives=7)
    with same_numbers():
        drawn = path._draw(torch.full((3000,), 6))
    counts = Counter(drawn.flatten().tolist())
    assert sorted(counts) == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    expected = 3000 * 7 / 9
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 26.1  # chi squared, 8 dof: 0.1%


def test_two_steps_draw_different_negatives() -> None:
    path = met(CRD, [0, 1] * 50)
    assert not torch.equal(path._draw(torch.arange(4)), path._draw(torch.arange(4)))


def test_fetched_rows_and_products_with_all_rows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for dense in (32, 0):
        monkeypatch.setattr("distill.paths.crd.DENSE", dense)
        case = make_case("CRD")
        case.student["s1"].requires_grad_()
        loss = case.loss()
        loss.backward()
        results.append([loss, case.student["s1"].grad, *(value.grad for value in case.path.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_training_alone_remembers_and_an_update_touches_the_batch_alone() -> None:
    case = make_case("CRD", batch_size=3)
    before = {name: value.clone() for name, value in case.path.state_dict().items()}
    case.path.eval()
    case.losses()
    for name, value in case.path.state_dict().items():
        assert torch.equal(value, before[name]), name
    case.path.train()
    case.losses()
    for name in ("bank_student", "bank_teacher"):
        bank = case.path.state_dict()[name]
        assert torch.equal(bank[3:], before[name][3:])
        assert not torch.isclose(bank[:3], before[name][:3]).all(dim=1).any()
        torch.testing.assert_close(torch.linalg.vector_norm(bank[:3], dim=1), torch.ones(3).double())
    assert case.path.log_constants.isfinite().all()


def test_a_checkpoint_holds_what_is_remembered() -> None:
    case = make_case("CRD")
    case.losses()
    fresh = make_case("CRD", seed=1)
    assert set(case.path.state_dict()) >= {"bank_student", "bank_teacher", "log_constants"}
    assert not any(name.startswith("_") for name in case.path.state_dict())
    fresh.path.load_state_dict(case.path.state_dict())
    fresh.student, fresh.teacher = case.student, case.teacher
    for _ in range(3):
        assert torch.equal(fresh.loss(), case.loss())
    for name, value in case.path.state_dict().items():
        assert torch.equal(value, fresh.path.state_dict()[name])


def test_the_remembered_embeddings_are_no_part_of_the_graph() -> None:
    case = make_case("CRD")
    total = case.loss() + case.loss()  # both before backward: what the first needs must outlive the second's update
    total.backward()
    assert not case.path.bank_student.requires_grad
    assert not case.path.log_constants.requires_grad


def test_the_gradient_is_that_of_the_banks_before_the_update() -> None:
    gradients = []
    for training in (True, False):
        case = make_case("CRD")
        case.path.train(training)
        case.student["s1"].requires_grad_()
        case.loss().backward()
        gradients.append(case.student["s1"].grad)
    torch.testing.assert_close(*gradients)


def test_bad_samples_and_options_are_refused() -> None:
    path = connect(CRD(), [(2, 1, 1)], [(2, 1, 1)])
    with pytest.raises(ValueError, match=r"CRD contrasts .* two classes or more, found 1 among 4 samples"):
        path.meet(Samples(torch.arange(4), torch.full((4,), 3)))
    for options, rule in (
        ({"dimensions": 0}, "dimensions must be a whole number of at least 1, found 0"),
        ({"dimensions": True}, "dimensions must be a whole number of at least 1, found True"),
        ({"num_negatives": 2.5}, "num_negatives must be a whole number of at least 1, found 2.5"),
        ({"temperature": 0}, "temperature must be a finite number above 0, found 0"),
        ({"momentum": -0.1}, "momentum must be a finite number of at least 0, found -0.1"),
        ({"momentum": 1.0}, "momentum must be below 1, or the memory would never change, found 1.0"),
    ):
        with pytest.raises(ValueError, match=rule):
            CRD(**options)


# Two real ranks


def make_ranked() -> tuple[Path, Batch, dict[str, Tensor], dict[str, Tensor]]:
    """Return a path and a batch of eight samples, always alike."""
    case = make_case("CRD", batch_size=8)
    return case.path, batch_of(8), case.student, case.target()


def train(part: slice) -> dict[str, Any]:
    """Make two steps on these samples of the batch, and return what is remembered and the first step's estimate."""
    path, batch, student, target = make_ranked()
    module = DistributedDataParallel(path, broadcast_buffers=False) if dist.is_initialized() else path
    torch.manual_seed(dist.get_rank() if dist.is_initialized() else 0)  # each rank draws negatives of its own
    losses, constants = [], []
    for indices in (batch.indices, batch.indices.flip(0)):
        share = Batch(batch.images[part], batch.labels[part], indices[part])
        taps, wanted = ({name: value[part] for name, value in side.items()} for side in (student, target))
        loss = module(taps, wanted, share)["s1"]
        loss.backward()
        losses.append(loss.detach())
        constants.append(path.log_constants.clone())
    return {"losses": losses, "constants": constants, "memory": dict(path.named_buffers())}


def work(rank: int) -> dict[str, Any]:
    return train(slice(4 * rank, 4 * rank + 4))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return on_ranks(work, tmp_path_factory.mktemp("ranks"))


def test_two_ranks_remember_the_same_bit_for_bit(ranks: list[dict[str, Any]]) -> None:
    first, second = (each["memory"] for each in ranks)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert ranks[0]["losses"] != ranks[1]["losses"]


def test_two_ranks_remember_all_that_one_process_would(ranks: list[dict[str, Any]]) -> None:
    whole = train(slice(None))["memory"]
    for name in ("bank_student", "bank_teacher"):
        torch.testing.assert_close(ranks[0]["memory"][name], whole[name])


def test_the_constants_are_the_mean_of_the_ranks_and_stay(ranks: list[dict[str, Any]]) -> None:
    alone = []
    for rank in range(2):
        path, batch, student, target = make_ranked()
        part = slice(4 * rank, 4 * rank + 4)
        torch.manual_seed(rank)
        taps, wanted = ({name: value[part] for name, value in side.items()} for side in (student, target))
        path(taps, wanted, Batch(batch.images[part], batch.labels[part], batch.indices[part]))
        alone.append(path.log_constants.exp())
    found = list(itertools.chain.from_iterable(each["constants"] for each in ranks))
    for constants in found:
        torch.testing.assert_close(constants.exp(), (alone[0] + alone[1]) / 2)


MUTANTS = {
    "CRD": [
        ("dimensions: int = 128", "dimensions: int = 64"),
        ("num_negatives: int = 16384", "num_negatives: int = 4096"),
        ("temperature: float = 0.07", "temperature: float = 0.1"),
        ("momentum: float = 0.5", "momentum: float = 0.9"),
        ("places + size * (places >= start)", "places + size * (places > start)"),
        ("places + size * (places >= start)", "places"),
        ("(len(self._indices) - size)", "((len(self._indices) - size).clamp_min(2) - 1)"),
        ("(sizes.cumsum(0) - sizes)[class_of]", "sizes.cumsum(0)[class_of]"),
        ("number - int(sizes.max())", "number - int(sizes.min())"),
        ("score - constant - noise", "score - constant + noise"),
        ("score - constant - noise", "score - noise"),
        ("odds[:, 0].neg_()", "odds[:, 0].abs_()"),
        ("F.softplus(odds).sum(dim=1).mean()", "F.softplus(odds).mean(dim=1).mean()"),
        ("F.softplus(odds).sum(dim=1).mean()", "F.softplus(odds).sum(dim=1).sum()"),
        ("slopes[:, 0].neg_()", "slopes[:, 0].abs_()"),
        ("torch.sigmoid(odds) / len(odds)", "torch.sigmoid(odds)"),
        ("_mixtures(slopes, bank, drawn) / self.temperature", "_mixtures(slopes, bank, drawn)"),
        ("((u, self.bank_teacher), (v, self.bank_student))", "((u, self.bank_student), (v, self.bank_teacher))"),
        ("+ math.log(len(self._indices))", ""),
        ("- math.log(score.numel())", ""),
        ("torch.where(self.log_constants.isfinite(), self.log_constants, estimate)", "estimate"),
        ("torch.lerp(latest, bank[rows], self.momentum)", "torch.lerp(bank[rows], latest, self.momentum)"),
        ("_unit(torch.lerp(latest, bank[rows], self.momentum))", "torch.lerp(latest, bank[rows], self.momentum)"),
        ("embeddings[last].unbind(1)", "embeddings[last].flip(1).unbind(1)"),
        ("rows, right=True) - 1]", "rows)]"),
        ("F.normalize(rows, dim=1", "F.normalize(rows, dim=1, p=1"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
