from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, dense_loss_of, join
from torch import Tensor

from distill.paths import Path, SoftTarget
from distill.paths.softened import standardized
from distill.taps import OUTPUT


def golden_two_classes(cls: type[Path]) -> None:
    # T = 2.  Student (0, 2 ln 3) / 2 = (0, ln 3): q = (1/4, 3/4).  Teacher (5, 5): p = (1/2, 1/2).
    # KL(p || q) = 1/2 ln((1/2)/(1/4)) + 1/2 ln((1/2)/(3/4)) = 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3).
    # (The other way round it would be -1/4 ln 2 + 3/4 ln(3/2).)  Times T^2: 2 ln(4/3).
    # A second sample with equal answers gives 0, so the mean over samples is ln(4/3).
    student = torch.tensor([[0.0, 2 * math.log(3)], [1.0, -1.0]])
    teacher = torch.tensor([[5.0, 5.0], [3.0, 1.0]])
    path = connect(cls(temperature=2.0), [(1, 1, 1)], [(1, 1, 1)])
    loss = path({OUTPUT: student}, path.target({OUTPUT: teacher}), batch_of(2))["logits"]
    torch.testing.assert_close(loss, torch.tensor(math.log(4 / 3)))


def golden_default_temperature(cls: type[Path]) -> None:
    # T = 4.  Student (0, 4 ln 3) / 4: q = (1/4, 3/4).  Teacher equal: p = (1/2, 1/2).  16 * 1/2 ln(4/3) = 8 ln(4/3).
    path = connect(cls(), [(1, 1, 1)], [(1, 1, 1)])
    student = torch.tensor([[0.0, 4 * math.log(3)]])
    loss = path({OUTPUT: student}, path.target({OUTPUT: torch.zeros(1, 2)}), batch_of(1))["logits"]
    torch.testing.assert_close(loss, torch.tensor(8 * math.log(4 / 3)))


def golden_rounding_below_zero(cls: type[Path]) -> None:
    # Answers that differ in the last digits: rounding must not make the divergence negative.
    generator = torch.Generator().manual_seed(0)
    path = connect(cls(), [(1, 1, 1)], [(1, 1, 1)])
    for _ in range(50):
        logits = 10 * torch.randn(1, 100, generator=generator)
        nearly = logits + 1e-6 * torch.randn(1, 100, generator=generator)
        loss = path({OUTPUT: nearly}, path.target({OUTPUT: logits}), batch_of(1))["logits"]
        assert 0 <= loss.item() < 1e-5


def golden_standardized(cls: type[Path]) -> None:
    # Two standardised logits are -1/sqrt(2) and 1/sqrt(2) whatever they were.  T = sqrt(2) / ln 3: q = (1/4, 3/4),
    # p = (3/4, 1/4), KL = 3/4 ln 3 - 1/4 ln 3 = 1/2 ln 3, times T^2 = 2 / (ln 3)^2.
    path = connect(cls(temperature=math.sqrt(2) / math.log(3), standardize=True), [(1, 1, 1)], [(1, 1, 1)])
    student, teacher = torch.tensor([[0.0, 5.0]]), torch.tensor([[7.0, 3.0]])
    loss = path({OUTPUT: student}, path.target({OUTPUT: teacher}), batch_of(1))["logits"]
    torch.testing.assert_close(loss, torch.tensor(1 / math.log(3)))
    # Three logits (1, 2, 6): mean 3, deviation sqrt((4 + 1 + 9) / 2) = sqrt(7).
    found = standardized(torch.tensor([[1.0, 2.0, 6.0]]))
    torch.testing.assert_close(found, torch.tensor([[-2.0, -1.0, 3.0]]) / math.sqrt(7))


def golden_a_probability_each(cls: type[Path]) -> None:
    # T = 2.  Student logits 2 ln 3 and 0: q = 3/4 and 1/2; teacher 0 and -2 ln 3: p = 1/2 and 1/4.
    # First class 1/2 ln(2/3) + 1/2 ln 2 = 1/2 ln(4/3); second 1/4 ln(1/2) + 3/4 ln(3/2) = 3/4 ln 3 - ln 2.
    # Sum over classes; a second place with equal answers gives 0, so the mean over places is half; times T^2 = 4.
    student = torch.tensor([[[2 * math.log(3), 1.0], [0.0, -3.0]]])
    teacher = torch.tensor([[[0.0, 1.0], [-2 * math.log(3), -3.0]]])
    path = join(cls(temperature=2.0), (2, 2), independent=True)
    wanted = 2 * (math.log(4 / 3) / 2 + 0.75 * math.log(3) - math.log(2))
    assert dense_loss_of(path, student, teacher).item() == pytest.approx(wanted, rel=1e-5)
    # d/ds of T^2 KL is T (q - p), over the two places: 2 (3/4 - 1/2) / 2 and 2 (1/2 - 1/4) / 2.
    student.requires_grad_()
    dense_loss_of(path, student, teacher).backward()
    torch.testing.assert_close(student.grad, torch.tensor([[[0.25, 0.0], [0.25, 0.0]]]))
    # Logits that the logarithm of a sigmoid in float32 would round to 0: p = 1 against q = 0 costs 1e4 / T, times T^2.
    found = dense_loss_of(path, torch.full((1, 2, 1), -1e4), torch.tensor([[[1e4], [-1e4]]]))
    assert found.item() == pytest.approx(2e4)


GOLDENS = {
    "SoftTarget": (
        golden_two_classes,
        golden_default_temperature,
        golden_rounding_below_zero,
        golden_standardized,
        golden_a_probability_each,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Class by class, from probabilities."""
    per_sample = []
    for one, other in zip(student[OUTPUT].tolist(), teacher[OUTPUT].tolist(), strict=True):
        q = [math.exp(value / 4) / sum(math.exp(v / 4) for v in one) for value in one]
        p = [math.exp(value / 4) / sum(math.exp(v / 4) for v in other) for value in other]
        per_sample.append(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
    return {"logits": 4 * 4 * sum(per_sample) / len(per_sample)}


def test_gradient_is_the_difference_of_probabilities() -> None:
    # d/ds of T^2 KL(p || q) is T (q - p): for q = (1/4, 3/4), p = (1/2, 1/2), T = 2: (-1/2, 1/2).
    student = torch.tensor([[0.0, 2 * math.log(3)]], requires_grad=True)
    path = connect(SoftTarget(temperature=2.0), [(1, 1, 1)], [(1, 1, 1)])
    path({OUTPUT: student}, path.target({OUTPUT: torch.zeros(1, 2)}), batch_of(1))["logits"].backward()
    torch.testing.assert_close(student.grad, torch.tensor([[-0.5, 0.5]]))


@pytest.mark.parametrize("scale", [1e6, 1e30])
def test_huge_logits_stay_finite(scale: float) -> None:
    student = (scale * torch.randn(4, 10, generator=torch.Generator().manual_seed(1))).requires_grad_()
    teacher = scale * torch.randn(4, 10, generator=torch.Generator().manual_seed(2))
    path = connect(SoftTarget(), [(1, 1, 1)], [(1, 1, 1)])
    loss = path({OUTPUT: student}, path.target({OUTPUT: teacher}), batch_of(4))["logits"]
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_dense_answers_average_over_positions() -> None:
    # [batch, class, height, width]: the mean over pixels of what each pixel alone would give.
    student, teacher = torch.randn(2, 2, 3, 2, 2, generator=torch.Generator().manual_seed(3)).unbind()
    path = connect(SoftTarget(), [(1, 1, 1)], [(1, 1, 1)])

    def loss(one: Tensor, other: Tensor) -> Tensor:
        return path({OUTPUT: one}, path.target({OUTPUT: other}), batch_of(len(one)))["logits"]

    pixels = [loss(student[:, :, y, x], teacher[:, :, y, x]) for y in range(2) for x in range(2)]
    torch.testing.assert_close(loss(student, teacher), torch.stack(pixels).mean())


@pytest.mark.parametrize("temperature", [0, -1.0, math.inf, math.nan, "4", True, None])
def test_temperature_must_be_positive(temperature: Any) -> None:
    with pytest.raises(ValueError, match="temperature must be a finite number above 0, found"):
        SoftTarget(temperature=temperature)


MUTANTS = {
    "SoftTarget": [
        ("log_softmax(self.soften(student), dim=1)", "log_softmax(self.soften(student), dim=0)"),
        ("log_softmax(self.soften(teacher)", "log_softmax(teacher"),
        ("log_softmax(self.soften(student)", "log_softmax(student"),
        ("self.temperature**2 * mean_divergence", "self.temperature * mean_divergence"),
        ("self.temperature**2 * mean_divergence", "-(self.temperature**2) * mean_divergence"),
        ("divergence(log_p, log_q)", "divergence(log_q, log_p)"),
        ("self.temperature**2 * mean_binary", "self.temperature * mean_binary"),
        ("(self.soften(teacher), self.soften(student))", "(self.soften(student), self.soften(teacher))"),
        ("(self.soften(teacher), self.soften(student))", "(teacher, student)"),
        ("if self.independent:", "if not self.independent:"),
        ("relu((yes + no).sum()", "relu(yes.sum()", "distill.paths.softened"),
        ("(yes + no).sum() / count", "(yes + no).mean()", "distill.paths.softened"),
        ("F.logsigmoid(student)", "F.sigmoid(student).log()", "distill.paths.softened"),
        (") / self.temperature", ") * self.temperature", "distill.paths.softened"),
        ("temperature: float = 4.0", "temperature: float = 1.0", "distill.paths.softened"),
        ("_parts(teacher, student).sum() / count", "_parts(teacher, student).sum()", "distill.paths.softened"),
        ("_parts(teacher, student).sum() / count", "_parts(teacher, student).mean()", "distill.paths.softened"),
        ("torch.relu(_parts", "(_parts", "distill.paths.softened"),
        ("(teacher - student)", "(teacher + student)", "distill.paths.softened"),
        ("logits - logits.mean", "logits + logits.mean", "distill.paths.softened"),
        ("logits.mean(dim=1", "logits.mean(dim=0", "distill.paths.softened"),
        ("vector_norm(centred, dim=1", "vector_norm(centred, 1, dim=1", "distill.paths.softened"),
        ("logits.shape[1] - 1, 1", "logits.shape[1], 1", "distill.paths.softened"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
