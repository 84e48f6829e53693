"""The slot of ``run.scheduler``."""

from distill.slots import Slot

STOPPING_RULE = Slot(
    "stopping rule", "orchestrator.schedulers.stopping_rule:StoppingRule", package="orchestrator.schedulers"
)
