"""The device that Ray gave to this process."""

from __future__ import annotations

import ray
import torch


def assigned_device() -> torch.device:
    """Return the first GPU that Ray assigned, else the CPU: any other GPU belongs to someone else, visible or not."""
    assigned = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    return torch.device("cuda", 0) if assigned else torch.device("cpu")
