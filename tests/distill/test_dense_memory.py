"""What evaluating dense predictions keeps in memory: the logits of one batch, and copies of their size."""

import weakref

import pytest
import torch
from dense_scene import CPU, NUM_VALIDATION, SEGMENTATION, DenseScene
from torch.utils._python_dispatch import TorchDispatchMode

from distill.batch import Batch
from distill.evaluate import ask_for_answers, evaluate
from distill.tasks import SemanticSegmentation


class Largest(TorchDispatchMode):
    """Notes the largest number of elements of any tensor that is made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if torch.is_tensor(each):
                self.numel = max(self.numel, each.numel())
        return made


@pytest.mark.parametrize("deterministic", [False, True])
def test_no_tensor_of_the_metrics_is_larger_than_the_logits(deterministic):
    logits, masks = torch.randn(2, 19, 16, 24), torch.randint(0, 19, (2, 16, 24))
    metrics = SemanticSegmentation().metrics(tuple(map(str, range(19))), CPU)
    torch.use_deterministic_algorithms(deterministic)
    try:
        with Largest() as largest:
            metrics.update(logits, Batch(logits, masks, torch.arange(2)), masks.to(torch.uint8))
    finally:
        torch.use_deterministic_algorithms(False)
    assert 0 < largest.numel <= logits.numel()


class Watched(SemanticSegmentation):
    """Counts the outputs of earlier batches that are still there when the next one is computed."""

    def __init__(self):
        super().__init__()
        self.given, self.left = [], 0

    def run(self, model, images):
        self.left += sum(each() is not None for each in self.given)
        output = super().run(model, images)
        self.given.append(weakref.ref(output["out"]))
        return output


def test_one_batch_s_logits_at_a_time_are_kept():
    scene, task = DenseScene(SEGMENTATION), Watched()
    loader = scene.loaders().validation
    teacher = scene.teacher()
    teacher.task = task
    answers = ask_for_answers(teacher, loader)
    assert sum(map(len, answers)) == NUM_VALIDATION
    assert {each.dtype for each in answers} == {torch.uint8}  # a byte a pixel stays, and no logits
    evaluate(scene.student(), loader, task, classes=loader.subset.source.classes, teacher_answers=answers)
    assert len(task.given) == 4
    assert task.left == 0
