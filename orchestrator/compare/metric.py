"""The one number of a run that ranks it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from orchestrator.compare.experiment import Experiment
from orchestrator.compare.run_record import RunRecord
from orchestrator.metric_names import in_words, is_of_one_class, is_share


@dataclass(frozen=True)
class Metric:
    """What ranks the runs, and on which images it was measured.

    Attributes:
        name: ``accuracy``, ``loss``, ...
        split: ``validation``; ``test`` under the protocol of the paper, which has no validation images.
        higher_is_better: whether a larger value is the better one.
    """

    name: str
    split: str
    higher_is_better: bool

    @classmethod
    def of(cls, experiment: Experiment, records: Sequence[RunRecord]) -> Metric:
        """Read the metric of an experiment and see that its finished runs have it.

        Raises:
            ValueError: no finished run has the metric.
        """
        name = experiment.metric.rpartition("/")[2]
        split = "test" if experiment.protocol == "paper" else "validation"
        metric = cls(name=name, split=split, higher_is_better=experiment.mode == "max")
        finished = [record for record in records if record.status == "finished"]
        if finished and all(metric.of_run(record) is None for record in finished):
            names = {name for record in finished for name in (record.result.get(split) or {})}
            known = sorted(name for name in names if not is_of_one_class(name))
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"run.metric: no finished run of {experiment.name!r} has {name!r} on its {split} images; "
                f"they have {', '.join(known) or 'nothing'}{hint}"
            )
        return metric

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
