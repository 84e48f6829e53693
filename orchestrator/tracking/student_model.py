"""The best student as a model that MLflow loads without pickle."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn


def save_student_model(module: nn.Module, example: Tensor, directory: Path) -> Path:
    """Write a student as a traced graph (``torch.export``) in MLflow's layout.

    ``mlflow.pytorch.load_model`` reads it with ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false``, at any batch size, on a
    machine that has neither this package nor the student's class.

    Args:
        module: what the task exports of the unmodified student, without hooks and adapters: images in, one tensor out;
            it is left as it was.
        example: a batch of normalised images [batch, channel, height, width] of at least 2: an example of one would fix
            the batch size at one.
        directory: the model's folder; replaced when it exists.

    Returns:
        ``directory``.

    Raises:
        ValueError: the example holds less than 2 images.
    """
    if example.shape[0] < 2:
        raise ValueError(f"example: must hold at least 2 images, else the batch size is fixed; found {len(example)}")
    import mlflow.pytorch
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    images = example.detach().cpu().float().contiguous()
    device = next(module.parameters()).device
    was_training = module.training
    student = module.cpu().eval()
    try:
        with torch.no_grad():
            logits = student(images)
        # Spelled out, because inferring it from the example would run MLflow's whole serving path.
        signature = ModelSignature(
            inputs=Schema([TensorSpec(images.numpy().dtype, (-1, *images.shape[1:]))]),
            outputs=Schema([TensorSpec(logits.numpy().dtype, (-1, *logits.shape[1:]))]),
        )
        shutil.rmtree(directory, ignore_errors=True)
        mlflow.pytorch.save_model(
            student,
            str(directory),
            signature=signature,
            input_example=images.numpy(),
            # Given, because MLflow would otherwise load the model in a process of its own to find out.
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", "numpy", "torch")],
            serialization_format="pt2",
        )
    finally:
        module.to(device).train(was_training)
    return directory
