"""Answers at many places, and classes that each have a probability of their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from path_cases import dense_loss_of, example, join, make_probe, module_of
from torch import Tensor

from distill import paths
from distill.paths import DIST, LogitPath, Logits, SoftTarget
from distill.taps import OUTPUT

LOGIT_PATHS = sorted(name for name in paths.__all__ if issubclass(getattr(paths, name), LogitPath))
DENSE = [name for name in LOGIT_PATHS if getattr(paths, name).takes_places]
LABELLED = ["DKD", "WSLD"]
UNKNOWN = 255


def draw(*shape: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    one, other = 2 * torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return one, other


@pytest.mark.parametrize("name", DENSE)
@pytest.mark.parametrize("places", [(3, 5), (7,)], ids=["map", "row"])
def test_each_place_counts_as_a_sample_of_its_own(name: str, places: tuple[int, ...]) -> None:
    # The equation in plain loops takes rows; each pixel is one, and the means are over all of them.
    student, teacher = draw(2, 4, *places)
    rows = [{OUTPUT: logits.movedim(1, -1).reshape(-1, 4)} for logits in (student, teacher)]
    path = join(example(name), (4, *places)).double()
    wanted = module_of(name).reference(path, *rows)["logits"]
    assert dense_loss_of(path, student, teacher).item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("name", [name for name in DENSE if name != "WSLD"])  # which weighs its loss without gradient
def test_gradient_of_dense_answers_agrees_with_finite_differences(name: str) -> None:
    student, teacher = draw(2, 4, 2, 3)
    path = join(example(name), (4, 2, 3)).double()
    for parameter in path.parameters():
        parameter.requires_grad_(False)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: dense_loss_of(path, logits, teacher), [student], fast_mode=True)


@pytest.mark.parametrize("name", [name for name in LOGIT_PATHS if name not in DENSE])
def test_what_would_be_a_matrix_of_all_pixels_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} takes one answer an image, but these models give logits \[4, 2, 3"):
        join(example(name), (4, 2, 3))


@pytest.mark.parametrize("name", LABELLED)
def test_pixels_that_are_not_known_are_left_out(name: str) -> None:
    student, teacher = draw(2, 4, 2, 2)
    path = join(example(name), (4, 2, 2)).double()
    labels = torch.full((2, 2, 2), UNKNOWN)
    labels[0, 1, 0], labels[1, 0, 1] = 2, 3
    known = [logits[[0, 1], :, [1, 0], [0, 1]] for logits in (student, teacher)]  # [2, class]
    wanted = dense_loss_of(join(example(name), (4,)).double(), *known, torch.tensor([2, 3]))
    for junk in (0.0, 1e4):
        student[0, :, 0, 0] = junk
        torch.testing.assert_close(dense_loss_of(path, student, teacher, labels), wanted)
    student.requires_grad_()
    dense_loss_of(path, student, teacher, labels).backward()
    assert student.grad is not None
    assert torch.equal(student.grad.abs().sum(dim=1) > 0, labels != UNKNOWN)


@pytest.mark.parametrize("name", LABELLED)
def test_a_batch_without_any_known_pixel_costs_nothing(name: str) -> None:
    student, teacher = draw(2, 4, 2, 2)
    path = join(example(name), (4, 2, 2)).double()
    loss = dense_loss_of(path, student.requires_grad_(), teacher, torch.full((2, 2, 2), UNKNOWN))
    loss.backward()
    assert loss.item() == 0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize("name", LABELLED)
def test_class_255_of_an_image_is_a_class(name: str) -> None:
    student, teacher = draw(2, 300)
    path = join(example(name), (300,)).double()
    assert dense_loss_of(path, student, teacher, torch.tensor([UNKNOWN, UNKNOWN])).item() > 0


@pytest.mark.parametrize("name", LABELLED)
@pytest.mark.parametrize("shape", [(2, 4, 4), (2,)])
def test_labels_of_another_size_are_refused_in_one_line(name: str, shape: tuple[int, ...]) -> None:
    student, teacher = draw(2, 4, 2, 2)
    path = join(example(name), (4, 2, 2)).double()
    message = r"logits \[2, 4, 2, 2\] go with labels \[2, 2, 2\], found \[" + ", ".join(map(str, shape)) + r"\]$"
    with pytest.raises(ValueError, match=message):
        dense_loss_of(path, student, teacher, torch.zeros(shape, dtype=torch.int64))


def test_binary_soft_targets_agree_with_two_classes() -> None:
    # A sigmoid is a softmax of the logit beside a zero: the sum over classes of soft targets between such pairs.
    student, teacher = draw(3, 4, 5)
    found = dense_loss_of(join(SoftTarget(), (4, 5), independent=True).double(), student, teacher)
    softmax = join(SoftTarget(), (2, 5)).double()
    wanted = sum(
        dense_loss_of(softmax, *(torch.stack([torch.zeros_like(x[:, c]), x[:, c]], 1) for x in (student, teacher)))
        for c in range(4)
    )
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("name", ["SoftTarget", "Logits"])
def test_classes_with_a_probability_each_stay_finite_and_have_the_right_slope(name: str) -> None:
    path = join(example(name), (4, 5), independent=True)
    student, teacher = draw(3, 4, 5)
    assert torch.autograd.gradcheck(
        lambda x: dense_loss_of(path, x, teacher), [student.requires_grad_()], fast_mode=True
    )
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 4, 1).expand(3, 4, 5)
    for one, other in ((signs, -signs), (signs, signs), (signs, 0 * signs), (0 * signs, signs)):
        logits = (1e4 * one).requires_grad_()
        loss = dense_loss_of(path, logits, 1e4 * other)
        loss.backward()
        assert torch.isfinite(loss)
        assert loss.item() >= 0
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        assert (loss.item() > 0) == (not torch.equal(one, other))


def test_logits_of_classes_with_a_probability_each_are_compared_by_value() -> None:
    # Squares 1, 4, 0, 0 over two classes and two places: the mean is 1.25.
    student, teacher = torch.tensor([[[1.0, 5.0], [2.0, 3.0]]]), torch.tensor([[[0.0, 5.0], [4.0, 3.0]]])
    assert dense_loss_of(join(Logits(), (2, 2), independent=True), student, teacher).item() == 1.25


@pytest.mark.parametrize("name", LOGIT_PATHS)
def test_each_path_says_whether_it_takes_a_probability_a_class(name: str) -> None:
    if name in {"Logits", "SoftTarget"}:
        assert join(example(name), (4, 5), independent=True).independent
        return
    with pytest.raises(ValueError, match=rf"^{name} needs classes that share one probability \(softmax\)") as caught:
        join(example(name), (4, 5), independent=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", LOGIT_PATHS)
def test_a_sigmoid_and_a_softmax_are_not_compared(name: str) -> None:
    sides = [make_probe(side, [(1, 1, 1)], independent=side == "t") for side in "st"]
    message = (
        r"the student gives its classes one to share \(softmax\) and the teacher each its own \(sigmoid\); use paths"
    )
    with pytest.raises(ValueError, match=message):
        example(name).connect(*sides)


@pytest.mark.parametrize("name", LOGIT_PATHS)
def test_other_places_are_refused_with_advice(name: str) -> None:
    sides = [make_probe(side, [(1, 1, 1)], places=places) for side, places in (("s", (2, 3)), ("t", (4, 6)))]
    message = r"the student gives \[4, 2, 3\] and the teacher \[4, 4, 6\] a sample.*use paths between features"
    with pytest.raises(ValueError, match=message):
        example(name).connect(*sides)


@pytest.mark.parametrize("kind", [SoftTarget, DIST])
def test_standardising_dense_answers_takes_each_place_alone(kind: Any) -> None:
    student, teacher = draw(2, 4, 2, 3)
    path = join(kind(standardize=True), (4, 2, 3)).double()
    before = dense_loss_of(path, student, teacher)
    scale, shift = torch.rand(2, 1, 2, 3).double() + 0.5, torch.randn(2, 1, 2, 3).double()
    torch.testing.assert_close(dense_loss_of(path, scale * student + shift, teacher), before, rtol=1e-5, atol=0)


def test_logits_whose_shift_counts_are_not_standardised() -> None:
    with pytest.raises(ValueError, match="standardize takes away the shift of the logits"):
        join(SoftTarget(standardize=True), (4, 5), independent=True)
