"""The answer of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.compare.aggregator_effect import AggregatorEffect
from orchestrator.compare.arm_runs import COMPLETE, ArmRuns
from orchestrator.compare.arm_summary import ArmSummary
from orchestrator.compare.experiment import Experiment
from orchestrator.compare.metric import Metric
from orchestrator.compare.noise import Noise
from orchestrator.compare.path_effect import PathEffect
from orchestrator.compare.run_record import RunRecord


@dataclass(frozen=True)
class Comparison:
    """What a sweep found: which paths help, which hurt, and the best arm.

    Attributes:
        experiment: what the sweep says about itself.
        metric: what orders the arms: on validation images, or on test images under the protocol of the paper.
        arms: the compared arms, the best first, the student alone among them.
        incomplete: every arm of which a run was stopped, failed or is missing.
        paths: effect of each path, the best first.
        aggregators: each aggregator against Equal, the best first.
        noise: how much one run scatters; None with a single seed.
        cautions: what to know before believing the numbers.
        gains: run key to the difference to the student alone of the same seed, for every finished run that has one.
        seeds: the seeds that every arm should have.
        num_records: how many runs left a record.
        against: name of the arm that all others are held against; None without one.
    """

    experiment: Experiment
    metric: Metric
    arms: tuple[ArmSummary, ...]
    incomplete: tuple[ArmRuns, ...]
    paths: tuple[PathEffect, ...]
    aggregators: tuple[AggregatorEffect, ...]
    noise: Noise | None
    cautions: tuple[str, ...]
    gains: Mapping[str, float]
    seeds: tuple[int, ...]
    num_records: int
    against: str | None = None

    @property
    def candidates(self) -> tuple[ArmSummary, ...]:
        """The arms among which the best one is chosen: complete ones with a path, else those with most seeds."""
        arms = [arm for arm in self.arms if not arm.runs.arm.is_alone]
        complete = [arm for arm in arms if arm.runs.state == COMPLETE]
        most = max((arm.num_seeds for arm in arms), default=0)
        return tuple(complete or [arm for arm in arms if arm.num_seeds == most])

    @property
    def best(self) -> ArmSummary | None:
        """The arm with the best mean of the ranking metric; None without any."""
        return self.candidates[0] if self.candidates else None

    @property
    def best_run(self) -> RunRecord:
        """The best run of the best arm.

        Raises:
            ValueError: there is no best arm.
        """
        if self.best is None:
            raise ValueError("no arm with a path has finished, so none is best")
        measured = [(self.metric.of_run(run), run) for run in self.best.runs.finished]
        ranked = [(self.metric.sign * value, run) for value, run in measured if value is not None]
        return max(ranked, key=lambda pair: pair[0])[1]

    @property
    def undecidable(self) -> dict[str, list[str]]:
        """The paths whose effect this sweep cannot tell, by reason."""
        reasons: dict[str, list[str]] = {}
        for item in self.paths:
            if item.reason is not None:
                reasons.setdefault(item.reason, []).append(item.path)
        return reasons

    @property
    def sentences(self) -> tuple[str, str]:
        """The answer in two sentences: what each path does, and the best arm."""
        from orchestrator.compare.sentences import best_sentence, paths_sentence

        return paths_sentence(self), best_sentence(self)

    def table_text(self, color: bool = False) -> str:
        """Return the table for a terminal, at most 140 columns wide."""
        from orchestrator.compare.table import text

        return text(self, color=color)

    @property
    def table_markdown(self) -> str:
        """The table as markdown, for the note in MLflow and for a README."""
        from orchestrator.compare.table import markdown

        return markdown(self)

    def to_json(self) -> dict[str, Any]:
        """Return the same numbers as plain data, unrounded."""
        from orchestrator.compare.plain import as_plain

        return as_plain(self)

    def write(self, destination: Path) -> dict[str, Path]:
        """Write report, pictures, table and numbers into a folder that is made if needed.

        Returns:
            What each file is, as the name to store it under (``report``, ``compare/path_effect``,
            ``compare/aggregators``, ``compare/predictions``, ``table``, ``numbers``), to where it lies. Pictures
            without content are left out; that of predictions is one that the sweep has drawn in the folder.
        """
        from orchestrator.compare.files import write

        return write(self, destination)
