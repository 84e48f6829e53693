"""The one number of a run by which arms are held against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from orchestrator.compare.experiment import Experiment
from orchestrator.compare.run_record import RunRecord
from orchestrator.metric_names import in_words, is_better_small, is_of_one_class, is_share
from orchestrator.ranking import VALIDATION


@dataclass(frozen=True)
class Metric:
    """What orders the arms, and on which images it was measured.

    Attributes:
        name: ``accuracy``, ``loss``, ``iou/road``, ...
        split: ``validation``; ``test`` under the protocol of the paper, which has no validation images.
        higher_is_better: whether a larger value is the better one.
        instead_of: the metric that ranks the runs of the sweep, as ``val/miou``, where this one was asked for instead.
    """

    name: str
    split: str
    higher_is_better: bool
    instead_of: str | None = None

    @classmethod
    def of(cls, experiment: Experiment, records: Sequence[RunRecord], asked: str | None = None) -> Metric:
        """Read the metric of an experiment and see that its finished runs have it.

        Args:
            experiment: what the sweep says about itself.
            records: its runs.
            asked: another metric of its runs, as ``val/iou/road``, to take instead of the one that ranks them.

        Raises:
            ValueError: no finished run has the metric.
        """
        split = "test" if experiment.protocol == "paper" else "validation"
        if asked in (None, experiment.metric):
            name = experiment.metric.removeprefix(VALIDATION)
            metric = cls(name, split, higher_is_better=experiment.mode == "max")
        else:
            name = str(asked).removeprefix(VALIDATION)
            metric = cls(name, split, higher_is_better=not is_better_small(name), instead_of=experiment.metric)
        metric._see_that_it_is_there(experiment, records)
        return metric

    def _see_that_it_is_there(self, experiment: Experiment, records: Sequence[RunRecord]) -> None:
        finished = [record for record in records if record.status == "finished"]
        if not finished or any(self.of_run(record) is not None for record in finished):
            return
        known = sorted({name for record in finished for name in (record.result.get(self.split) or {})})
        near = get_close_matches(self.name, known, n=1)
        hint = f"; did you mean 'val/{near[0]}'?" if near else ""
        listed = ", ".join(f"val/{name}" for name in known if not is_of_one_class(name))
        key = "run.metric" if self.instead_of is None else "--metric"
        raise ValueError(
            f"{key}: no finished run of {experiment.name!r} has 'val/{self.name}' on its {self.split} images; "
            f"they have {listed or 'nothing'}{hint}"
        )

    def of_run(self, record: RunRecord) -> float | None:
        """Return the run's value, or None where it has none."""
        return record.measured(self.split, self.name)

    @property
    def sign(self) -> int:
        """Factor that makes a larger number the better one."""
        return 1 if self.higher_is_better else -1

    @property
    def decimals(self) -> int:
        """Digits that a table shows after the point."""
        return 2 if is_share(self.name) else 4

    @property
    def unit(self) -> str:
        """Unit of a difference, in words."""
        return "points" if is_share(self.name) else f"of {self.words}"

    @property
    def words(self) -> str:
        """The metric's name in words, such as ``mIoU``."""
        return in_words(self.name)

    @property
    def label(self) -> str:
        """The metric in words, such as ``validation accuracy``."""
        return f"{self.split} {self.words}"

    @property
    def is_test(self) -> bool:
        """Whether the test images rank, which every table and sentence then says."""
        return self.split == "test"
