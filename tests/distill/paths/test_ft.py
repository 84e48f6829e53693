from __future__ import annotations

import copy
import math
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from naive_maps import Maps, naive_layers, naive_pooled_alike, positions
from path_cases import Case, batch_of, connect, make_case
from torch import Tensor, nn

from distill import distributed
from distill.paths import FT, Path
from distill.paths.base import key


def made_plain(path: Path) -> Path:
    """Let every layer be the identity for positive values, of the channels that there are on both sides."""
    path.eval()
    for module in path.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data.zero_()
            for channel in range(min(module.weight.shape[:2])):
                module.weight.data[channel, channel, 1, 1] = 1
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return path.double()


def loss_of(path: Path, student: Any, teacher: Any, progress: float = 0.5) -> Tensor:
    """Return the loss between maps `[batch][channel][row][column]`."""
    one, other = (torch.as_tensor(maps, dtype=torch.float64) for maps in (student, teacher))
    path.advance(progress)
    loss: Tensor = path({"s0": one}, path.target({"t0": other}), batch_of(len(one)))["s0"]
    return loss


def golden_unit_factors(cls: type[Path]) -> None:
    # Two channels, half of them is one factor: the first channel.  First sample: teacher (3, 4), unit (.6, .8); student
    # (4, 3), unit (.8, .6): differences .2 and .2.  Second sample: equal but for the length.  Mean of four: .1.
    path = made_plain(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    student = [[[[4.0, 3.0]], [[9.0, 9.0]]], [[[1.0, 2.0]], [[9.0, 9.0]]]]
    teacher = [[[[3.0, 4.0]], [[1.0, 7.0]]], [[[5.0, 10.0]], [[1.0, 7.0]]]]
    assert path.paraphrasers[key("s0")].encoder[-2].num_features == 1
    assert loss_of(path, student, teacher).item() == pytest.approx(0.1)
    # The copy encodes, whatever became of the encoder.
    path.paraphrasers[key("s0")].encoder[0].weight.data.neg_()
    assert loss_of(path, student, teacher).item() == pytest.approx(0.1)


def golden_unit_over_channels_and_positions(cls: type[Path]) -> None:
    # Two factors, as many as the teacher's channels: teacher (1, 2), (2, 4), student (4, 2), (2, 1), both of length 5.
    # Differences .6, 0, 0, .6: mean .3.
    path = made_plain(connect(cls(paraphrase_rate=1.0), [(2, 1, 2)], [(2, 1, 2)]))
    assert loss_of(path, [[[[4.0, 2.0]], [[2.0, 1.0]]]], [[[[1.0, 2.0]], [[2.0, 4.0]]]]).item() == pytest.approx(0.3)


def golden_leaky_relus(cls: type[Path]) -> None:
    # Three leaky ReLUs take a thousandth of what is negative.  Teacher (3, -4000) -> (3, -4): unit (.6, -.8).  Student
    # (4, 3): unit (.8, .6).  Differences .2 and 1.4.
    path = made_plain(connect(cls(), [(1, 1, 2)], [(1, 1, 2)]))
    assert loss_of(path, [[[[4.0, 3.0]]]], [[[[3.0, -4000.0]]]]).item() == pytest.approx(0.8)
    assert loss_of(path, [[[[3.0, -4000.0]]]], [[[[4.0, 3.0]]]]).item() == pytest.approx(0.8)


def golden_short_factors(cls: type[Path]) -> None:
    # A factor of length 5e-7 is divided by 1e-6: (.3, .4), against (.6, .8): mean .35.
    path = made_plain(connect(cls(), [(1, 1, 2)], [(1, 1, 2)]))
    assert loss_of(path, [[[[3e-7, 4e-7]]]], [[[[3.0, 4.0]]]]).item() == pytest.approx(0.35)


def golden_larger_factor_is_pooled(cls: type[Path]) -> None:
    # The teacher's rows averaged: (3, 4).  The student (4, 3).
    path = made_plain(connect(cls(), [(1, 1, 2)], [(1, 2, 2)]))
    assert loss_of(path, [[[[4.0, 3.0]]]], [[[[1.0, 3.0], [5.0, 5.0]]]]).item() == pytest.approx(0.2)


def golden_reconstruction(cls: type[Path]) -> None:
    # The first channel passes, the second is lost: squares 0, 0, 1, 4 in the mean.  What the student says is nothing.
    path = made_plain(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    teacher = [[[[3.0, 4.0]], [[1.0, 2.0]]]]
    for progress in (0.0, 0.0999):
        assert loss_of(path, [[[[9.0, 1.0]], [[9.0, 9.0]]]], teacher, progress).item() == pytest.approx(1.25)
    assert loss_of(path, [[[[3.0, 4.0]], [[9.0, 9.0]]]], teacher, 0.1).item() == pytest.approx(0)
    # -1 comes back through six leaky ReLUs as a millionth.
    path = made_plain(connect(cls(paraphrase_rate=1.0), [(1, 1, 1)], [(1, 1, 1)]))
    assert loss_of(path, [[[[1.0]]]], [[[[-1.0]]]], 0.0).item() == pytest.approx((1 - 1e-6) ** 2)


def golden_who_learns_when(cls: type[Path]) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 2, 3, 3, generator=generator) for _ in range(2))
    for progress in (0.0, 0.5):
        path = connect(cls(), [(2, 3, 3)], [(2, 3, 3)])
        assert sorted({name.split(".")[0] for name, _ in path.named_parameters()}) == ["paraphrasers", "translators"]
        maps = student.clone().requires_grad_()
        path.advance(progress)
        path({"s0": maps}, path.target({"t0": teacher}), batch_of(2))["s0"].backward()
        waiting = "translators" if progress == 0 else "paraphrasers"
        for name, parameter in path.named_parameters():
            assert (parameter.grad is None) == name.startswith(waiting), name
        paraphraser, translator = path.paraphrasers[key("s0")], path.translators[key("s0")]
        learned = [paraphraser.encoder[0], paraphraser.decoder[0]] if progress == 0 else [translator[0]]
        assert all(module.weight.grad.any() for module in learned)
        assert (maps.grad is not None and bool(maps.grad.any())) == (progress > 0)


def golden_every_parameter_has_a_gradient_where_ddp_waits_for_it(cls: type[Path]) -> None:
    for progress in (0.0, 0.5):
        path = connect(cls(), [(2, 3, 3)], [(2, 3, 3)])
        path.advance(progress)
        with (
            mock.patch("distill.distributed.is_active", return_value=True),
            mock.patch("distill.distributed.mean", lambda values: values),
        ):
            path({"s0": torch.randn(2, 2, 3, 3)}, {"s0": torch.randn(2, 2, 3, 3)}, batch_of(2))["s0"].backward()
        waiting = "translators" if progress == 0 else "paraphrasers"
        for name, parameter in path.named_parameters():
            assert parameter.grad is not None, name
            assert not (name.startswith(waiting) and parameter.grad.any()), name


def golden_frozen_copy(cls: type[Path]) -> None:
    # In the first phase the copy follows the encoder, BatchNorm's statistics included; in the second it stays; in
    # evaluation mode it stays as well.
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 2, 3, 3, generator=generator) for _ in range(2))
    path = connect(cls(), [(2, 3, 3)], [(2, 3, 3)]).train()
    paraphraser = path.paraphrasers[key("s0")]
    assert not any(module.training for module in paraphraser.frozen.modules())

    def step(progress: float, by: float) -> list[Tensor]:
        with torch.no_grad():
            for parameter in path.parameters():
                parameter += by
        path.advance(progress)
        path({"s0": student}, path.target({"t0": teacher}), batch_of(2))
        return [value.clone() for value in paraphraser.frozen.buffers()]

    def is_equal_to_the_encoder() -> bool:
        state = paraphraser.encoder.state_dict()
        return all(torch.equal(value, state[name]) for name, value in paraphraser.frozen.module.state_dict().items())

    before = step(0.05, 0.5)
    assert is_equal_to_the_encoder()
    after = step(0.5, 0.5)
    assert not is_equal_to_the_encoder()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    path.eval()
    step(0.05, 0.5)
    assert not is_equal_to_the_encoder()


def golden_last_map_alone(cls: type[Path]) -> None:
    path = connect(cls(), [(3, 4, 4), (5, 2, 2)], [(4, 4, 4), (6, 2, 2)])
    assert path.layers == ("s1",)
    assert path.learns  # until it hears how far the training is
    assert path.translators[key("s1")][-2].num_features == 3


GOLDENS = {
    "FT": (
        golden_unit_factors,
        golden_unit_over_channels_and_positions,
        golden_leaky_relus,
        golden_short_factors,
        golden_larger_factor_is_pooled,
        golden_reconstruction,
        golden_who_learns_when,
        golden_every_parameter_has_a_gradient_where_ddp_waits_for_it,
        golden_frozen_copy,
        golden_last_map_alone,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Layer by layer and value by value, at the start of the training."""
    losses = {}
    for pair in path.pairs:
        own: Maps = student[pair.student].double().tolist()
        other: Maps = teacher[pair.teacher].double().tolist()
        paraphraser = path.paraphrasers[key(pair.layer)]
        if path.pretrain > 0:
            made = naive_layers(paraphraser.decoder, naive_layers(paraphraser.encoder, other))
            gaps = [(made[b][c][y][x] - other[b][c][y][x]) ** 2 for b, c, y, x in positions(other)]
        else:
            factors = naive_layers(paraphraser.frozen.module, other)
            own, factors = naive_pooled_alike(naive_layers(path.translators[key(pair.layer)], own), factors)
            one, two = ([_unit(sample) for sample in maps] for maps in (own, factors))
            gaps = [abs(x - y) for a, b in zip(one, two, strict=True) for x, y in zip(a, b, strict=True)]
        losses[pair.layer] = sum(gaps) / len(gaps)
    return losses


def _unit(sample: list[list[list[float]]]) -> list[float]:
    values = [value for plane in sample for row in plane for value in row]
    length = max(math.sqrt(sum(value * value for value in values)), 1e-6)
    return [value / length for value in values]


def first_phase(**options: Any) -> Case:
    case = make_case("FT", **options)
    case.path.pretrain = 0.1
    case.path.advance(0.0)
    return case


SHAPES: dict[str, dict[str, Any]] = {
    "two stages": {},
    "many channels": {"student": [(2, 2, 2)], "teacher": [(9, 2, 2)]},
    "sizes differ": {"student": [(5, 3, 2)], "teacher": [(6, 1, 4)]},
    "one position": {"student": [(3, 1, 1)], "teacher": [(4, 1, 1)]},
    "one channel": {"student": [(1, 4, 4)], "teacher": [(1, 4, 4)]},
    "batch of one": {"batch_size": 1},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_first_phase_agrees_with_the_equation_in_plain_loops(shape: dict[str, Any], training: bool) -> None:
    case = first_phase(**shape)
    case.path.train(training)
    wanted = reference(case.path, case.student, case.teacher)
    assert {layer: loss.item() for layer, loss in case.losses().items()} == pytest.approx(wanted, rel=1e-9)


def test_first_phase_has_the_gradient_of_an_autoencoder() -> None:
    case = first_phase()
    twin = copy.deepcopy(case.path.paraphrasers[key("s1")])
    case.loss().backward()
    F.mse_loss(twin.decoder(twin.encoder(case.teacher["t1"])), case.teacher["t1"]).backward()
    for own, plain in zip(case.path.paraphrasers.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, plain.grad)


@pytest.mark.parametrize(
    "kind", [torch.zeros_like, lambda v: torch.full_like(v, 3), lambda v: 1e4 * v, lambda v: 1e-20 * v]
)
def test_first_phase_stays_finite(kind: Any) -> None:
    case = first_phase(dtype=torch.float32)
    case.teacher = {tap: kind(value) for tap, value in case.teacher.items()}
    loss = case.loss()
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter.grad).all() for parameter in case.path.paraphrasers.parameters())


def test_each_phase_compiles_to_one_graph() -> None:
    path = connect(FT(), [(3, 4, 4)], [(4, 4, 4)]).eval()
    student, target = {"s0": torch.randn(2, 3, 4, 4)}, {"s0": torch.randn(2, 4, 4, 4)}
    traced: list[int] = []

    def count(module: torch.fx.GraphModule, _: Any) -> Any:
        traced.append(len(module.graph.nodes))
        return module.forward

    compiled = torch.compile(path, fullgraph=True, backend=count)
    for progress in (0.0, 0.05, 0.1, 0.5, 1.0):
        path.advance(progress)
        assert torch.equal(compiled(student, target, batch_of(2))["s0"], path(student, target, batch_of(2))["s0"])
    assert len(traced) == 2


@pytest.mark.parametrize("optimizer", ["momentum and weight decay", "adamw"])
def test_factors_are_frozen_whatever_the_optimiser_does(optimizer: str) -> None:
    path = connect(FT(), [(3, 4, 4)], [(4, 4, 4)]).train()
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(8, 3, 4, 4, generator=generator), torch.randn(8, 4, 4, 4, generator=generator)
    if optimizer == "adamw":
        steps: torch.optim.Optimizer = torch.optim.AdamW(path.parameters(), lr=0.01, weight_decay=0.1)
    else:
        steps = torch.optim.SGD(path.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    losses, factors, weights = [], [], []
    for step in range(40):
        path.advance(step / 40)
        loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(8))["s0"]
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
        factors.append(path.paraphrasers[key("s0")].frozen(teacher))
        weights.append(path.paraphrasers[key("s0")].encoder[0].weight.detach().clone())
    assert losses[3] < losses[0]  # the first phase: four steps of reconstruction
    assert losses[-1] < losses[4]  # the second: the student draws near
    assert not torch.equal(factors[0], factors[3])
    assert all(torch.equal(later, factors[3]) for later in factors[4:])
    assert torch.equal(weights[4], weights[-1])  # nor does the paraphraser itself move


def test_frozen_copy_has_the_mean_of_all_ranks_running_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case("FT")
    case.path.pretrain = 0.1
    case.path.advance(0.0)
    monkeypatch.setattr(distributed, "mean", lambda values: values + 1)  # as other ranks might have it
    case.losses()
    paraphraser = case.path.paraphrasers[key(case.path.layers[0])]
    copies, originals = dict(paraphraser.frozen.module.named_buffers()), dict(paraphraser.encoder.named_buffers())
    for name in ("1.running_mean", "1.running_var", "7.running_var"):
        torch.testing.assert_close(copies[name], originals[name] + 1)
    assert torch.equal(copies["0.weight"], paraphraser.encoder[0].weight)


def test_frozen_copy_is_no_parameter_and_is_saved() -> None:
    path = make_case("FT").path
    names = {name for name, _ in path.named_parameters()}
    frozen = {name for name in path.state_dict() if ".frozen." in name}
    assert not names & frozen
    encoder = {name for name in path.state_dict() if "paraphrasers" in name and ".encoder." in name}
    assert {name.replace(".frozen.module.", ".encoder.") for name in frozen} == encoder
    assert not any(buffer.requires_grad for buffer in path.buffers())


def test_a_translator_like_the_paraphraser_has_nothing_to_learn() -> None:
    case = make_case("FT", student=[(6, 3, 3)], teacher=[(6, 3, 3)])
    case.path.eval()
    case.path.translators[key("s0")].load_state_dict(case.path.paraphrasers[key("s0")].frozen.module.state_dict())
    case.student["s0"] = case.teacher["t0"]
    assert case.loss().item() == 0


@pytest.mark.parametrize(("rate", "channels", "factors"), [(0.5, 64, 32), (0.75, 8, 6), (0.1, 3, 1), (2.0, 5, 10)])
def test_number_of_factors(rate: float, channels: int, factors: int) -> None:
    path = connect(FT(paraphrase_rate=rate), [(3, 2, 2)], [(channels, 2, 2)])
    assert path.paraphrasers[key("s0")].frozen(torch.randn(1, channels, 2, 2)).shape == (1, factors, 2, 2)


@pytest.mark.parametrize("rate", [0.0, -0.5, float("nan"), "half"])
def test_paraphrase_rate_must_be_above_zero(rate: Any) -> None:
    with pytest.raises(ValueError, match="paraphrase_rate must be a finite number above 0, found"):
        FT(paraphrase_rate=rate)


@pytest.mark.parametrize("share", [-0.1, 1.0, 2.0, float("nan")])
def test_pretrain_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match=r"pretrain must be .*at least 0.*, found"):
        FT(pretrain=share)


TRANSLATED = [
    ("F.l1_loss(", "F.mse_loss("),
    ("return F.l1_loss(_unit(own), _unit(other))", "return F.l1_loss(_unit(own), _unit(other), reduction='sum')"),
    ("return F.l1_loss(_unit(own), _unit(other))", "return F.l1_loss(own, other)"),
    ("return F.l1_loss(_unit(own), _unit(other))", "return F.l1_loss(_unit(own), -_unit(other))"),
    ("error = F.mse_loss(", "error = F.l1_loss("),
    ("self.decoder(encoding)", "self.decoder(self.frozen(teacher))"),
    ("F.normalize(encodings.flatten(1), dim=1", "F.normalize(encodings.flatten(1), p=1, dim=1"),
    ("F.normalize(encodings.flatten(1), dim=1", "F.normalize(encodings, dim=1"),
    ("F.normalize(encodings.flatten(1), dim=1", "F.normalize(encodings.flatten(2), dim=2"),
    ("EPSILON = 1e-6", "EPSILON = 1e-12"),
    ("< self.pretrain", "<= self.pretrain"),
    ("< self.pretrain", "> self.pretrain"),
    ("if self.learns:", "if not self.learns:"),
    ("self.advance(0.0)", "self.advance(1.0)"),
    ("loss + _nothing(waiting[key(layer)]).to(loss)", "loss"),
    ("if not distributed.is_active():", "if distributed.is_active():"),
    ("waiting = self.translators", "waiting = self.paraphrasers"),
    ("waiting = self.paraphrasers", "waiting = self.translators"),
    ("self.decoder(encoding)", "self.decoder(encoding.detach())"),
    ("old.copy_(news[name].view_as(old))", "pass"),
    ("**buffers, **dict(zip(statistics, shares, strict=True))", "**dict(zip(own, own.values()))"),
    ("if self.training:", "if True:"),
    ("super().train(False)", "super().train(mode)"),
    ("self.paraphraser(layer).frozen(teacher)", "self.paraphraser(layer).encoder(teacher).detach()"),
    ("self.paraphraser(layer).frozen(teacher)", "self.paraphraser(layer).encoder(teacher)"),
    ("only_last = True", "only_last = False"),
    ("(student), target)", "(student), target.amax(2, keepdim=True))"),
]
"""Changes of what this path shares with others."""

MUTANTS = {
    "FT": [
        ("SLOPE = 0.1", "SLOPE = 0.01"),
        ("pretrain: float = 0.1", "pretrain: float = 0.2"),
        ("pretrain: float = 0.1", "pretrain: float = 0.05"),
        ("paraphrase_rate: float = 0.5", "paraphrase_rate: float = 1.0"),
        *((old, new, "distill.paths.translated") for old, new in TRANSLATED),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
