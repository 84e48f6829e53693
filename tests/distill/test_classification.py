import math

import pytest
import torch
from torch.nn import functional as F

from distill.batch import Batch
from distill.tasks import Classification

CPU = torch.device("cpu")


def batch(labels):
    labels = torch.tensor(labels)
    return Batch(torch.zeros(len(labels), 1, 2, 2), labels, torch.arange(len(labels)))


def test_loss_is_cross_entropy_by_hand():
    # Two classes, logits (0, log 3): softmax = (1/4, 3/4); labels 0 and 1 cost log 4 and log(4/3).
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]])
    expected = (math.log(4) + math.log(4 / 3)) / 2
    assert Classification().loss(logits, batch([0, 1])).item() == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_by_hand():
    # Smoothing 0.2 over two classes: the label keeps 0.9, the other gets 0.1.
    logits = torch.tensor([[0.0, math.log(3)]])
    expected = 0.9 * math.log(4) + 0.1 * math.log(4 / 3)
    assert Classification(label_smoothing=0.2).loss(logits, batch([0])).item() == pytest.approx(expected, rel=1e-6)


def test_auxiliary_heads_count_by_their_weight():
    main, auxiliary = torch.randn(3, 4), torch.randn(3, 4)
    labels = batch([0, 1, 2])
    expected = F.cross_entropy(main, labels.labels) + 0.4 * F.cross_entropy(auxiliary, labels.labels)
    assert torch.allclose(Classification().loss((main, auxiliary), labels), expected)
    assert torch.equal(Classification().logits((main, None)), main)


@pytest.mark.parametrize("options", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"auxiliary_weight": -1.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Classification(**options)


def test_metrics_by_hand():
    metrics = Classification().metrics(tuple(map(str, range(6))), CPU)
    # Four samples of six classes. Arg max: 0, 1, 2, 3. Labels: 0, 1, 5, 0 -> two right. In the third sample the label's
    # logit is the smallest, so top-5 misses it; in the fourth it is second. Teacher agrees on samples 0 and 3.
    logits = torch.full((4, 6), 1.0)
    logits[0, 0] = logits[1, 1] = logits[2, 2] = logits[3, 3] = 5.0
    logits[2, 5] = 0.0
    logits[3, 0] = 2.0
    teacher = torch.zeros(4, 6)
    teacher[0, 0] = teacher[1, 5] = teacher[2, 1] = teacher[3, 3] = 1.0
    metrics.update(logits[:3], batch([0, 1, 5]), teacher[:3].argmax(1))
    metrics.update(logits[3:], batch([0]), teacher[3:].argmax(1))
    values = metrics.compute()
    assert values["accuracy"] == pytest.approx(50.0)
    assert values["top5"] == pytest.approx(75.0)
    assert values["agreement"] == pytest.approx(50.0)
    labels = torch.tensor([0, 1, 5, 0])
    assert values["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    # Expected calibration error, 15 equal bins over the confidence of the arg max, by plain loops.
    confidence, guess = logits.softmax(1).max(1)
    error = 0.0
    for lower in range(15):
        inside = (confidence > lower / 15) & (confidence <= (lower + 1) / 15)
        if inside.any():
            right = (guess == labels)[inside].float().mean()
            error += inside.float().mean().item() * abs(right - confidence[inside].mean()).item()
    assert values["calibration_error"] == pytest.approx(100 * error, rel=1e-4)


def test_no_teacher_no_agreement_and_few_classes_no_top5():
    metrics = Classification().metrics(tuple(map(str, range(3))), CPU)
    metrics.update(torch.eye(3), batch([0, 1, 2]), None)
    assert set(metrics.compute()) == {"loss", "accuracy", "calibration_error"}
