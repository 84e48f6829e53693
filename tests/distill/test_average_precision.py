"""Average precision against torchmetrics; by hand it stands in the tests of the metrics."""

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from distill.tasks.average_precision import Found, There, average_precision


def test_against_torchmetrics_on_random_boxes():
    generator = torch.Generator().manual_seed(0)
    found, there = [], []
    for _ in range(40):
        number = int(torch.randint(6, (), generator=generator))
        corner = torch.rand(number, 2, generator=generator) * 60
        boxes = torch.cat([corner, corner + 4 + torch.rand(number, 2, generator=generator) * 40], dim=1)
        labels = torch.randint(1, 4, (number,), generator=generator)
        there.append(There(boxes, labels, torch.rand(number, generator=generator) < 0.2))
        shifted = torch.cat([boxes, boxes]) + torch.randn(2 * number, 4, generator=generator) * 3
        shifted[:, 2:] = torch.maximum(shifted[:, 2:], shifted[:, :2] + 1)
        found.append(Found(shifted, torch.rand(2 * number, generator=generator), torch.cat([labels, labels.flip(0)])))
    recalls = np.linspace(0, 1, 101).tolist()  # its own are rounded to float32, and miss recalls that lie on them
    reference = MeanAveragePrecision(class_metrics=True, rec_thresholds=recalls, backend="faster_coco_eval")
    reference.update(
        [each._asdict() for each in found],
        [{"boxes": each.boxes, "labels": each.labels, "iscrowd": each.ignored.long()} for each in there],
    )
    expected = reference.compute()
    precision = average_precision(found, there, 4)
    assert precision.shape == (4, 10)
    assert bool(precision[0].isnan().all())
    assert 0.1 < float(expected["map"]) < 0.9
    assert float(precision[1:].mean()) == pytest.approx(float(expected["map"]), abs=1e-6)
    assert float(precision[1:, 0].mean()) == pytest.approx(float(expected["map_50"]), abs=1e-6)
    assert float(precision[1:, 5].mean()) == pytest.approx(float(expected["map_75"]), abs=1e-6)
    torch.testing.assert_close(precision[1:].mean(dim=1).float(), expected["map_per_class"], rtol=1e-5, atol=1e-6)
