"""From the runs of a sweep to its answer: which paths help, which hurt, and the best arm.

Reads ``runs.jsonl`` and ``experiment.json`` alone; needs neither torch nor Ray nor MLflow.
"""

from orchestrator.compare.analysis import compare
from orchestrator.compare.command import command
from orchestrator.compare.comparison import Comparison
from orchestrator.compare.decidable import decidable_effect, undecidable_paths

__all__ = ["Comparison", "command", "compare", "decidable_effect", "undecidable_paths"]
