"""Where a training runs on Ray: as a Tune trial of its own, or as one of several Train workers."""

from orchestrator.hosts.train_host import TrainHost
from orchestrator.hosts.tune_host import TuneHost

__all__ = ["TrainHost", "TuneHost"]
