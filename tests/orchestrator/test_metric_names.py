"""What is said of metrics without asking the task, which needs torch."""

import pytest

from distill.tasks.classification import Classification
from distill.tasks.detection import Detection
from distill.tasks.semantic_segmentation import SemanticSegmentation
from orchestrator.metric_names import in_words, is_better_small


@pytest.mark.parametrize("task", [Classification, SemanticSegmentation, Detection])
def test_which_end_is_the_better_one_is_what_the_task_says(task):
    assert {name for name in task.metrics_known if is_better_small(name)} == task.smaller_is_better & set(
        task.metrics_known
    )
    assert "loss" in task.metrics_known


def test_a_metric_of_one_class_is_named_with_its_class():
    assert in_words("iou/traffic light") == "IoU of traffic light"
    assert in_words("ap/a/b") == "AP of a/b"
    assert in_words("pixel_accuracy") == "pixel accuracy"
