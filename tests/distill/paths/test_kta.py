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

from distill.paths import KTA, Path
from distill.paths.base import key


def made_plain(path: Path) -> Path:
    """Let every layer be the identity for positive values, of the channels that there are on both sides."""
    path.eval()
    for module in path.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.weight.data.zero_()
            for channel in range(min(module.weight.shape[:2])):
                module.weight.data[channel, channel, 1, 1] = 1
            if module.bias is not None:
                module.bias.data.zero_()
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    return path.double()


def loss_of(path: Path, student: Any, teacher: Any, progress: float = 0.5) -> Tensor:
    """Return the loss between maps `[batch][channel][row][column]`."""
    one, other = (torch.as_tensor(maps, dtype=torch.float64) for maps in (student, teacher))
    path.advance(progress)
    loss: Tensor = path({"s0": one}, path.target({"t0": other}), batch_of(len(one)))["s0"]
    return loss


def golden_unit_encodings(cls: type[Path]) -> None:
    # Half of two channels is one: the first.  First sample: teacher (3, 4), unit (.6, .8); student (4, 3), unit
    # (.8, .6): differences .2 and .2.  Second sample: equal but for the length.  Mean of four: .1.
    path = made_plain(connect(cls(), [(2, 1, 2)], [(2, 1, 2)]))
    student = [[[[4.0, 3.0]], [[9.0, 9.0]]], [[[1.0, 2.0]], [[9.0, 9.0]]]]
    teacher = [[[[3.0, 4.0]], [[1.0, 7.0]]], [[[5.0, 10.0]], [[1.0, 7.0]]]]
    assert loss_of(path, student, teacher).item() == pytest.approx(0.1)
    # The copy encodes, whatever became of the encoder.
    path.paraphrasers[key("s0")].encoder[0].weight.data.neg_()
    assert loss_of(path, student, teacher).item() == pytest.approx(0.1)


def golden_relus(cls: type[Path]) -> None:
    # Nothing of what is negative passes on either side: teacher (3, -4, 0) -> unit (1, 0, 0), student (-1, 2, 0) ->
    # (0, 1, 0): differences 1, 1, 0.
    path = made_plain(connect(cls(), [(1, 1, 3)], [(1, 1, 3)]))
    assert loss_of(path, [[[[-1.0, 2.0, 0.0]]]], [[[[3.0, -4.0, 0.0]]]]).item() == pytest.approx(2 / 3)


def golden_larger_encoding_is_pooled(cls: type[Path]) -> None:
    # The teacher's rows averaged: (3, 4).  The student (4, 3).
    path = made_plain(connect(cls(), [(1, 1, 2)], [(1, 2, 2)]))
    assert loss_of(path, [[[[4.0, 3.0]]]], [[[[1.0, 3.0], [5.0, 5.0]]]]).item() == pytest.approx(0.2)


def golden_reconstruction(cls: type[Path]) -> None:
    # The first channel passes, the second is lost: squares 0, 0, 1, 4 in the mean, 1.25.  The encoding (3, 4) has the
    # mean magnitude 3.5, of which a tenth counts.  What the student says is nothing.
    teacher = [[[[3.0, 4.0]], [[1.0, 2.0]]]]
    path = made_plain(connect(cls(sparsity=0.1), [(2, 1, 2)], [(2, 1, 2)]))
    for progress in (0.0, 0.0999):
        found = loss_of(path, [[[[9.0, 1.0]], [[9.0, 9.0]]]], teacher, progress).item()
        assert found == pytest.approx(1.25 + 0.35)
    assert loss_of(path, [[[[3.0, 4.0]], [[9.0, 9.0]]]], teacher, 0.1).item() == pytest.approx(0)
    # By default the magnitude counts next to nothing, but not nothing.
    path = made_plain(connect(cls(rate=1.0), [(1, 1, 1)], [(1, 1, 1)]))
    assert loss_of(path, [[[[1.0]]]], [[[[5.0]]]], 0.0).item() == pytest.approx(5e-7, rel=1e-6)
    # Nothing cuts off what the decoder says: a last convolution of -1 gives back -5 for 5.
    path.paraphrasers[key("s0")].decoder[6].weight.data.neg_()
    assert loss_of(path, [[[[1.0]]]], [[[[5.0]]]], 0.0).item() == pytest.approx(100, rel=1e-6)


def golden_who_learns_when(cls: type[Path]) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 2, 3, 3, generator=generator) for _ in range(2))
    for progress, parallel in ((0.0, False), (0.5, False), (0.0, True), (0.5, True)):
        path = connect(cls(), [(2, 3, 3)], [(2, 3, 3)])
        maps = student.clone().requires_grad_()
        path.advance(progress)
        with (
            mock.patch("distill.distributed.is_active", return_value=parallel),
            mock.patch("distill.distributed.mean", lambda values: values),
        ):
            path({"s0": maps}, path.target({"t0": teacher}), batch_of(2))["s0"].backward()
        waiting = "translators" if progress == 0 else "paraphrasers"
        for name, parameter in path.named_parameters():
            waits = name.startswith(waiting)
            assert (parameter.grad is None) == (waits and not parallel), name
            assert not (waits and parallel and parameter.grad.any()), name
        assert (maps.grad is not None and bool(maps.grad.any())) == (progress > 0)


def golden_last_map_alone(cls: type[Path]) -> None:
    path = connect(cls(), [(3, 4, 4), (5, 2, 2)], [(4, 4, 4), (6, 2, 2)])
    assert path.layers == ("s1",)
    assert path.learns  # until it hears how far the training is
    assert path.translators[key("s1")][0].weight.shape == (3, 5, 3, 3)


GOLDENS = {
    "KTA": (
        golden_unit_encodings,
        golden_relus,
        golden_larger_encoding_is_pooled,
        golden_reconstruction,
        golden_who_learns_when,
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
            encoding = naive_layers(paraphraser.encoder, other)
            made = naive_layers(paraphraser.decoder, encoding)
            gaps = [(made[b][c][y][x] - other[b][c][y][x]) ** 2 for b, c, y, x in positions(other)]
            sizes = [abs(encoding[b][c][y][x]) for b, c, y, x in positions(encoding)]
            losses[pair.layer] = sum(gaps) / len(gaps) + path.sparsity * sum(sizes) / len(sizes)
            continue
        encodings = naive_layers(paraphraser.frozen.module, other)
        own, encodings = naive_pooled_alike(naive_layers(path.translators[key(pair.layer)], own), encodings)
        one, two = ([_unit(sample) for sample in maps] for maps in (own, encodings))
        gaps = [abs(x - y) for a, b in zip(one, two, strict=True) for x, y in zip(a, b, strict=True)]
        losses[pair.layer] = sum(gaps) / len(gaps)
    return losses


def _unit(sample: list[list[list[float]]]) -> list[float]:
    values = [value for plane in sample for row in plane for value in row]
    length = max(math.sqrt(sum(value * value for value in values)), 1e-6)
    return [value / length for value in values]


def first_phase(**options: Any) -> Case:
    case = make_case("KTA", **options)
    case.path.pretrain = 0.1
    case.path.advance(0.0)
    return case


@pytest.mark.parametrize("teacher", [(6, 2, 2), (1, 3, 4), (9, 1, 1)])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_first_phase_agrees_with_the_equation_in_plain_loops(teacher: tuple[int, int, int], training: bool) -> None:
    case = first_phase(student=[(2, 2, 2)], teacher=[teacher])
    for paraphraser in case.path.paraphrasers.values():
        paraphraser.sparsity = case.path.sparsity = 0.3
    case.path.train(training)
    wanted = reference(case.path, case.student, case.teacher)
    assert {layer: loss.item() for layer, loss in case.losses().items()} == pytest.approx(wanted, rel=1e-9)


def test_first_phase_has_the_gradient_of_a_sparse_autoencoder() -> None:
    case = first_phase()
    twin = copy.deepcopy(case.path.paraphrasers[key("s1")])
    case.loss().backward()
    encoding = twin.encoder(case.teacher["t1"])
    (F.mse_loss(twin.decoder(encoding), case.teacher["t1"]) + 1e-7 * encoding.abs().mean()).backward()
    for own, plain in zip(case.path.paraphrasers.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own.grad, plain.grad)


def test_student_learns_from_what_the_first_phase_found() -> None:
    path = connect(KTA(), [(3, 4, 6)], [(4, 4, 6)]).train()
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(8, 3, 4, 6, generator=generator), torch.randn(8, 4, 4, 6, generator=generator)
    steps = torch.optim.SGD(path.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    losses, encodings = [], []
    for step in range(40):
        path.advance(step / 40)
        loss = path({"s0": student}, path.target({"t0": teacher}), batch_of(8))["s0"]
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(loss.item())
        encodings.append(path.paraphrasers[key("s0")].frozen(teacher))
    assert losses[3] < losses[0]
    assert losses[-1] < losses[4]
    assert not torch.equal(encodings[0], encodings[3])
    assert all(torch.equal(later, encodings[3]) for later in encodings[4:])


@pytest.mark.parametrize(
    "options", [{"rate": 0.0}, {"rate": math.nan}, {"sparsity": -1.0}, {"pretrain": 1.0}, {"pretrain": -0.1}]
)
def test_options_out_of_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        KTA(**options)


MUTANTS = {
    "KTA": [
        ("rate: float = 0.5", "rate: float = 1.0"),
        ("sparsity: float = 1e-7", "sparsity: float = 0.0"),
        ("pretrain: float = 0.1", "pretrain: float = 0.2"),
        ("nn.ReLU()", "nn.LeakyReLU(0.1)"),
        ("Autoencoder(encoder, decoder, self.sparsity)", "Autoencoder(encoder, decoder)"),
        ("nn.ConvTranspose2d(out_channels, out_channels, kernel_size=3, padding=1),",
         "nn.ConvTranspose2d(out_channels, out_channels, kernel_size=3, padding=1), nn.ReLU(),"),
        ("error + self.sparsity * encoding", "error - self.sparsity * encoding", "distill.paths.translated"),
        ("encoding.abs().mean()", "encoding.abs().sum()", "distill.paths.translated"),
        ("encoding.abs().mean()", "encoding.square().mean()", "distill.paths.translated"),
        ("F.l1_loss(", "F.mse_loss(", "distill.paths.translated"),
        ("< self.pretrain", "<= self.pretrain", "distill.paths.translated"),
        (".frozen(teacher)", ".encoder(teacher)", "distill.paths.translated"),
        ("waiting = self.translators", "waiting = self.paraphrasers", "distill.paths.translated"),
    ],
}  # fmt: skip
"""Changes of the source that a golden value notices; see test_mutants."""
