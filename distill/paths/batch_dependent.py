"""What paths share whose losses compare the samples of a batch with each other."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from distill import distributed
from distill.paths.base import FeaturePath, Path, TapChoice


class BatchDependent(Path):
    """A path that looks at several samples at once, and says whose.

    With several workers each sees a share of the batch. By default a path of this kind compares the samples of its
    worker's share. With ``gather`` every worker compares those of the whole batch: other workers' samples are
    collected, without gradient, and each worker's own gradient counts once for every worker, so that the mean over
    workers, which data-parallel training takes, is the gradient of the whole batch on one worker.

    Modules that look at one sample at a time belong before :meth:`together`, and none that learns after it.
    """

    batch_dependent: ClassVar[bool] = True
    gather: bool = False

    def together(self, rows: Tensor) -> Tensor:
        """Return the samples that are compared, ``[sample, ...]``: those given, or with ``gather`` all workers'.

        Shares must be equal; with one worker, and without ``gather``, this is ``rows`` itself.
        """
        return distributed.gather_rows(rows) if self.gather else rows


class BatchDependentFeatures(BatchDependent, FeaturePath):
    """A path between features that looks at several samples at once.

    Args:
        taps: as for :class:`FeaturePath`.
        gather: whether to compare the samples of all workers.
    """

    def __init__(self, taps: TapChoice = "auto", gather: bool = False) -> None:
        super().__init__(taps)
        self.gather = gather
