"""The target store of a sweep: what is worth storing, and who fills it."""

from orchestrator.store.decision import Decision, decide
from orchestrator.store.filling import FillJob, fill, fill_jobs
from orchestrator.store.group import Group, expected_runs, group_runs
from orchestrator.store.measurement import Measurement, measure
from orchestrator.store.plan import StorePlan, plan_store

__all__ = [
    "Decision",
    "FillJob",
    "Group",
    "Measurement",
    "StorePlan",
    "decide",
    "expected_runs",
    "fill",
    "fill_jobs",
    "group_runs",
    "measure",
    "plan_store",
]
