"""Under which arithmetic a teacher was asked: what decides the last bits of its answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from distill.data import Loader
from distill.distiller import Precision


@dataclass(frozen=True)
class Numerics:
    """What the last bits of a forward pass depend on, besides model and image.

    Answers of another batch size, layout or number of threads differ by rounding (1e-6 of their size), so exact
    storage keeps them apart.

    Attributes:
        precision: ``bfloat16``: under autocast.
        channels_last: memory layout of the images.
        batch_rows: images a forward pass.
        threads: of torch, on a CPU; 0 elsewhere.
        device: kind of device.
        torch: release of torch.
    """

    precision: Precision
    channels_last: bool
    batch_rows: int
    threads: int
    device: str
    torch: str

    @classmethod
    def of(cls, loader: Loader, precision: Precision) -> Numerics:
        """Return the arithmetic of a training on ``loader`` in this process."""
        kind = loader.device.type
        return cls(
            precision=precision,
            channels_last=loader.channels_last,
            batch_rows=loader.batch_size // loader.world_size,
            threads=torch.get_num_threads() if kind == "cpu" else 0,
            device=kind,
            torch=torch.__version__,
        )

    def identity(self, *, exact: bool) -> dict[str, Any]:
        """Return what of it tells stored answers apart: all of it, or what is more than rounding."""
        return asdict(self) if exact else {"precision": self.precision}
