from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from naive_maps import naive_adapter
from path_cases import batch_of, connect, identity_adapters, make_case, make_probe
from torch import Tensor, nn

from distill.paths import Path, SoftmaxRegression
from distill.taps import OUTPUT, Tap


def classifier_of(weight: list[list[float]], bias: list[float] | None) -> nn.Linear:
    classifier = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    classifier.weight.data = torch.tensor(weight)
    if bias is not None:
        classifier.bias.data = torch.tensor(bias)
    return classifier


def convolution_of(weight: list[list[float]], bias: list[float]) -> nn.Conv2d:
    convolution = nn.Conv2d(len(weight[0]), len(weight), kernel_size=1)
    convolution.weight.data = torch.tensor(weight)[:, :, None, None]
    convolution.bias.data = torch.tensor(bias)
    return convolution


def dense(path: Path, classifier: nn.Module | None, places: tuple[int, ...]) -> Path:
    """Connect a path to a student with a map of two channels, and a teacher that answers at these places."""
    teacher = make_probe("t", [(5, 1, 2)], num_classes=2, classifier=classifier, places=places)
    path.connect(make_probe("s", [(2, 1, 2)], num_classes=2, places=places), teacher)
    return path


def golden_through_the_teachers_classifier(cls: type[Path]) -> None:
    # The student's channels average to (1, 2) over two positions.  W = [[1, 2], [0, -1]], b = (1, 0):
    # u = (1 + 4 + 1, -2) = (6, -2).  Teacher (4, 1): squares 4 and 9, mean 6.5.
    # Second sample: averages (0, 0), u = b = (1, 0), which the teacher says too: 0.  Mean over the batch: 3.25.
    student = torch.tensor([[[[-1.0, 3.0]], [[2.0, 2.0]]], [[[1.0, -1.0]], [[0.0, 0.0]]]])
    teacher = torch.tensor([[4.0, 1.0], [1.0, 0.0]])
    classifier = classifier_of([[1.0, 2.0], [0.0, -1.0]], [1.0, 0.0])
    path = identity_adapters(connect(cls(), [(7, 4, 4), (2, 1, 2)], [(9, 4, 4), (2, 2, 2)], classifier))
    loss = path({"s1": student}, path.target({OUTPUT: teacher}), batch_of(2))["s1"]
    torch.testing.assert_close(loss, torch.tensor(3.25))


def golden_classifier_without_bias(cls: type[Path]) -> None:
    # u = W (1, 2) = (5, -2) against (4, 1): squares 1 and 9, mean 5.
    classifier = classifier_of([[1.0, 2.0], [0.0, -1.0]], None)
    path = identity_adapters(connect(cls(), [(2, 1, 1)], [(2, 1, 1)], classifier))
    student = torch.tensor([[[[1.0]], [[2.0]]]])
    loss = path({"s0": student}, path.target({OUTPUT: torch.tensor([[4.0, 1.0]])}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(5.0))


def golden_adapter_is_used(cls: type[Path]) -> None:
    # An adapter that swaps (1, 2) to (2, 1): u = W (2, 1) = (4, -1) against (4, 1): squares 0 and 4, mean 2.
    classifier = classifier_of([[1.0, 2.0], [0.0, -1.0]], None)
    path = identity_adapters(connect(cls(), [(2, 1, 1)], [(2, 1, 1)], classifier))
    for weight in path.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.flip(0)
    student = torch.tensor([[[[1.0]], [[2.0]]]])
    loss = path({"s0": student}, path.target({OUTPUT: torch.tensor([[4.0, 1.0]])}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(2.0))


def golden_every_position(cls: type[Path]) -> None:
    # Two positions, channels (1, 3) and (2, 2).  W = [[1, 2], [0, -1]], b = (1, 0): u is (6, 8) and (-2, -2) there.
    # At four columns, bilinear, with corners not aligned: 3/4 and 1/4 of both in between: (6, 6.5, 7.5, 8) and -2.
    # Teacher (6, 6.5, 7.5, 6) and (-2, -2, -2, 0): squares 4 and 4 of eight: mean 1.
    student = torch.tensor([[[[1.0, 3.0]], [[2.0, 2.0]]]])
    teacher = torch.tensor([[[[6.0, 6.5, 7.5, 6.0]], [[-2.0, -2.0, -2.0, 0.0]]]])
    path = identity_adapters(dense(cls(), convolution_of([[1.0, 2.0], [0.0, -1.0]], [1.0, 0.0]), (1, 4)))
    loss = path({"s0": student}, path.target({OUTPUT: teacher}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(1.0))
    # At one column: the middle, 7 and -2.  Teacher (6, -1): squares 1 and 1.
    loss = path({"s0": student}, path.target({OUTPUT: torch.tensor([[[[6.0]], [[-1.0]]]])}), batch_of(1))["s0"]
    torch.testing.assert_close(loss, torch.tensor(1.0))


GOLDENS = {
    "SoftmaxRegression": (
        golden_through_the_teachers_classifier,
        golden_classifier_without_bias,
        golden_adapter_is_used,
        golden_every_position,
    )
}


def reference(path: Path, student: dict[str, Tensor], teacher: dict[str, Tensor]) -> dict[str, float]:
    """Sample by sample and class by class."""
    (pair,) = path.pairs
    weight, bias = path.weight.tolist(), path.bias.tolist()
    squares = []
    adapted = naive_adapter(path.adapter, student[pair.student])
    for maps, wanted in zip(adapted, teacher[OUTPUT].tolist(), strict=True):
        pooled = [sum(sum(row) for row in channel) / (len(channel) * len(channel[0])) for channel in maps]
        for line, shift, logit in zip(weight, bias, wanted, strict=True):
            squares.append((sum(w * value for w, value in zip(line, pooled, strict=True)) + shift - logit) ** 2)
    return {pair.layer: sum(squares) / len(squares)}


def test_zero_where_the_teachers_classifier_agrees() -> None:
    features, classifier = torch.randn(3, 5, 2, 2), nn.Linear(5, 4)
    path = identity_adapters(connect(SoftmaxRegression(), [(5, 2, 2)], [(5, 2, 2)], classifier))
    target = path.target({OUTPUT: classifier(features.mean(dim=(2, 3)))})
    assert path({"s0": features}, target, batch_of(3))["s0"].item() == pytest.approx(0, abs=1e-12)


def test_gradient_flows_through_the_classifier_but_not_into_it() -> None:
    classifier = nn.Linear(6, 4)
    path = connect(SoftmaxRegression(), [(3, 2, 2)], [(6, 2, 2)], classifier)
    student = torch.randn(2, 3, 2, 2, requires_grad=True)
    before = classifier.weight.detach().clone()
    path({"s0": student}, {"s0": torch.randn(2, 4)}, batch_of(2))["s0"].backward()
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert classifier.weight.grad is None
    assert path.weight.grad is None
    assert not path.weight.requires_grad
    assert {name.split(".")[0] for name, _ in path.named_parameters()} == {"adapter"}
    assert {name.split(".")[0] for name in path.state_dict()} == {"adapter"}
    path.weight.zero_()  # a copy: whatever happens to it, the teacher stays as it is
    assert torch.equal(classifier.weight, before)


def test_adapter_leads_to_the_classifiers_width() -> None:
    # A teacher such as VGG, whose classifier reads something wider than the last feature map.
    path = connect(SoftmaxRegression(), [(3, 2, 2)], [(6, 2, 2)], nn.Linear(17, 4))
    assert path.adapter.convolution.weight.shape == (17, 3, 1, 1)


def test_student_may_know_other_classes() -> None:
    path = SoftmaxRegression()
    teacher = make_probe("t", [(6, 2, 2)], num_classes=4, classifier=nn.Linear(6, 4))
    path.connect(make_probe("s", [(3, 2, 2)], num_classes=9), teacher)
    assert path({"s0": torch.randn(2, 3, 2, 2)}, {"s0": torch.randn(2, 4)}, batch_of(2))["s0"] > 0


def test_teacher_without_linear_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match=r"SoftmaxRegression needs a teacher whose last layer is an nn.Linear"):
        connect(SoftmaxRegression(), [(3, 2, 2)], [(6, 2, 2)], classifier=None)


def test_reads_the_teachers_output_and_no_map() -> None:
    case = make_case("SoftmaxRegression")
    assert [(pair.student, pair.teacher) for pair in case.path.pairs] == [("s1", OUTPUT)]
    assert torch.equal(case.target()["s1"], case.teacher[OUTPUT])


def test_gradient_flows_through_the_convolution_but_not_into_it() -> None:
    classifier = convolution_of([[1.0, 2.0, 0.5], [0.0, -1.0, 2.0]], [1.0, 0.0])
    path = dense(SoftmaxRegression(), classifier, (3, 5)).double()
    student, teacher = torch.randn(2, 2, 2, 3).double().requires_grad_(), torch.randn(2, 2, 3, 5).double()
    assert path.adapter.convolution.weight.shape == (3, 2, 1, 1)
    path.eval()

    def loss(features: Tensor) -> Tensor:
        found: Tensor = path({"s0": features}, {"s0": teacher}, batch_of(2))["s0"]
        return found

    assert torch.autograd.gradcheck(loss, [student], fast_mode=True)
    loss(student).backward()
    assert classifier.weight.grad is None
    assert path.weight.grad is None
    assert {name.split(".")[0] for name, _ in path.named_parameters()} == {"adapter"}


@pytest.mark.parametrize("classifier", [None, nn.Linear(5, 2)])
def test_dense_teacher_without_a_convolution_at_its_end_is_refused(classifier: nn.Module | None) -> None:
    with pytest.raises(ValueError, match=r"whose last layer is an nn.Conv2d of kernel size 1, found none"):
        dense(SoftmaxRegression(), classifier, (3, 5))


def test_detectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not a detector, found one that gives logits \[2, 17\] a sample"):
        dense(SoftmaxRegression(), nn.Conv2d(5, 2, 1), (17,))
    level = Tap(":level0", 5, 1, 2, 1.0, "output")
    teacher = replace(make_probe("t", [(5, 1, 2)], classifier=nn.Linear(5, 4)), stages=(level,))
    with pytest.raises(ValueError, match="not a detector"):
        SoftmaxRegression().connect(make_probe("s", [(5, 1, 2)]), teacher)


MUTANTS = {
    "SoftmaxRegression": [
        ("self.adapter.means(student)", "self.adapter(student).amax(dim=(2, 3))"),
        ("self.adapter.means(student)", "self.adapter(student).sum(dim=(2, 3))"),
        ("F.linear(pooled, self.weight, self.bias)", "F.linear(pooled, self.weight)"),
        ("F.linear(pooled, self.weight, self.bias)", "F.linear(pooled, -self.weight, self.bias)"),
        ("F.mse_loss(", "F.l1_loss("),
        ("F.mse_loss(self._classify(student, wanted), wanted)", "F.mse_loss(self._classify(student, wanted), -wanted)"),
        ("(student, wanted), wanted)", "(student, wanted), wanted, reduction='sum')"),
        ("align_corners=False", "align_corners=True"),
        ("F.conv2d(self.adapter(student), self.weight, self.bias)", "F.conv2d(student, self.weight)"),
        ("self.adapter.means(student)", "student.mean(dim=(2, 3))"),
    ],
}
"""Changes of the source that a golden value notices; see test_mutants."""
