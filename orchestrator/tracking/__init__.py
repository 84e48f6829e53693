"""MLflow as a mirror of what a sweep records: it may be late, and nothing waits for it."""

from orchestrator.tracking.sweep_log import SweepLog
from orchestrator.tracking.target import Target, spool_directory
from orchestrator.tracking.tracker import Tracker

__all__ = ["SweepLog", "Target", "Tracker", "spool_directory"]
