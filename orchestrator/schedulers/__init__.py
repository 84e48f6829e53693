"""Rules that stop arms early. ``__all__`` is what ``run.scheduler`` may name; constructors are the schema."""

from orchestrator.schedulers.asha import ASHA
from orchestrator.schedulers.median_stopping import MedianStopping

__all__ = ["ASHA", "MedianStopping"]
