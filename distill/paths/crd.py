"""Contrastive representation distillation: of many images, which one is this?"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill import distributed
from distill.batch import Batch, Samples
from distill.options import finite, whole
from distill.paths.base import Path, Taps, Target, no_autocast, widen
from distill.taps import Probe, TapPair, pair_last

EPSILON = 1e-6
"""Embeddings shorter than this are divided by it."""
DENSE = 80
"""As many products with rows in their order take as long as one with a row that has to be fetched (on a CPU)."""


class CRD(Path):
    """Makes the student tell each training image from thousands of others by the teacher's features, and vice versa.

    With the deepest features averaged over positions, ``s`` and ``t``, and embeddings of unit length, ``u = unit(A s)``
    and ``v = unit(B t)``, where ``A`` and ``B`` are learned linear layers with bias, the path keeps two memory banks:
    ``U`` and ``V`` hold the latest embeddings of every training sample. For a sample ``i`` and ``K`` samples ``j``
    drawn from other classes, with ``N`` samples in all and the temperature ``T``::

        p(u, j) = exp(<u, V[j]> / T) / Z
        loss(u) = -log(p(u, i) / (p(u, i) + K / N)) - sum over j of log((K / N) / (p(u, j) + K / N))
        loss = mean over batch of (loss(u) + loss(v))

    where ``loss(v)`` looks ``v`` up in ``U``, with the same ``j``. The constant ``Z``, one for each bank, is ``N``
    times the mean of ``exp(<u, V[j]> / T)`` over the first batch, ``j = i`` included. After the loss is computed, in
    training alone, the rows of the batch move: ``U[i] = unit(momentum * U[i] + (1 - momentum) * u)``. No gradient flows
    into banks and ``Z``.

    The target is ``t``, ``[batch, channel]``. Student and teacher may differ in channels, height and width.

    The banks are ``2 N * dimensions`` numbers on every worker and in every checkpoint: 51 MB for 50 000 samples of 128
    dimensions, 1.3 GB for ImageNet; tables of 32 bytes a sample come on top, in memory alone. Banks and ``Z`` are the
    same on every worker: each learns the embeddings of all, and ``Z`` is the mean of all workers' estimates. Workers
    need equally many samples a step. Where a sample is in a batch twice, its last embedding counts.

    Source: Tian et al. 2020, *Contrastive representation distillation* (ICLR, arXiv:1910.10699), section 3, and the
    authors' code, from which are ``Z``, the momentum, the first values of the banks and the defaults (the paper has a
    temperature of 0.1 for CIFAR-100). The authors weigh the loss by 0.8.

    Departures: negatives are drawn with replacement, which among thousands is hardly another draw (the authors:
    without, unless there are too few). There are never more of them than there are samples outside the largest class,
    where the authors draw some again. The 1e-7 that the code adds to both denominators is left out: ``K / N`` is there.
    A sample's class is the one of its data set, whatever the batch's labels say.

    Args:
        dimensions: length of the embeddings.
        num_negatives: ``K``, negatives a sample; as many as there are at most.
        temperature: ``T``, above 0.
        momentum: share of the old embedding in the new one, from 0 to below 1.

    Raises:
        ValueError: an option is out of bounds.
    """

    needs_samples = True
    needs_labels = ("images",)
    target_options = ()

    bank_student: Tensor  # [sample, dimension]
    bank_teacher: Tensor
    log_constants: Tensor  # [2]: log Z of what looks into the teacher's bank, and the student's; infinite: not known
    _indices: Tensor  # [sample], ascending: row r of the banks is this sample
    _by_class: Tensor  # [sample]: rows, class by class
    _start: Tensor  # [sample]: where the class of each row starts in _by_class
    _size: Tensor  # [sample]: size of each row's class

    def __init__(
        self,
        dimensions: int = 128,
        num_negatives: int = 16384,
        temperature: float = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        self.dimensions = whole("dimensions", dimensions, at_least=1)
        self.num_negatives = whole("num_negatives", num_negatives, at_least=1)
        self.temperature = finite("temperature", temperature, above=0)
        self.momentum = finite("momentum", momentum, at_least=0)
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, or the memory would never change, found {momentum!r}")

    def choose_pairs(self, student: Probe, teacher: Probe) -> tuple[TapPair, ...]:
        """Pair the deepest features."""
        return pair_last(student, teacher)

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build both embeddings."""
        (pair,) = self.pairs
        self.embed_student = nn.Linear(student[pair.student].channels, self.dimensions)
        self.embed_teacher = nn.Linear(teacher[pair.teacher].channels, self.dimensions)

    def meet(self, samples: Samples) -> None:
        """Fill the banks with random embeddings, one for each sample, and sort the samples by class.

        Raises:
            ValueError: all samples are of one class.
        """
        number = len(samples.indices)
        classes, class_of, sizes = torch.unique(samples.labels, return_inverse=True, return_counts=True)
        if len(classes) < 2:
            raise ValueError(
                "CRD contrasts each sample with samples of other classes and needs two classes or more, found "
                f"{len(classes)} among {number} samples"
            )
        self._num_drawn = min(self.num_negatives, number - int(sizes.max()))
        tables = {
            "_indices": samples.indices,
            "_by_class": class_of.argsort(stable=True),
            "_start": (sizes.cumsum(0) - sizes)[class_of],
            "_size": sizes[class_of],
        }
        for name, table in tables.items():  # not persistent: they come from the data
            self.register_buffer(name, table, persistent=False)
        bound = math.sqrt(3 / self.dimensions)  # rows of unit length, on average
        for name in ("bank_student", "bank_teacher"):
            self.register_buffer(name, torch.empty(number, self.dimensions).uniform_(-bound, bound))
        self.register_buffer("log_constants", torch.full((2,), math.inf))

    def target(self, taps: Taps) -> Target:
        """Return the teacher's deepest features, averaged over positions."""
        (pair,) = self.pairs
        return {pair.layer: widen(taps[pair.teacher].detach()).mean(dim=(2, 3))}

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the loss under the name of the student's tap; in training, remember the batch."""
        (pair,) = self.pairs
        student = widen(taps[pair.student])
        with no_autocast(student):
            u = _unit(self.embed_student(student.mean(dim=(2, 3))))  # [batch, dimension]
            v = _unit(self.embed_teacher(widen(target[pair.layer])))
            rows = torch.searchsorted(self._indices, batch.indices)
            loss = self._loss(u, v, torch.cat([rows[:, None], self._draw(rows)], dim=1))
            if self.training:
                self._remember(rows, torch.stack([u, v], dim=1).detach())
        return {pair.layer: loss}

    def _draw(self, rows: Tensor) -> Tensor:
        """Draw rows of other classes, ``[batch, negative]``; each of them is as likely as any other."""
        start, size = self._start[rows, None], self._size[rows, None]
        # Whole numbers: a float32 has too few digits to choose among a million. The remainder's bias is below 1e-12.
        numbers = torch.randint(1 << 62, (len(rows), self._num_drawn), device=rows.device)
        places = numbers % (len(self._indices) - size)
        return self._by_class[places + size * (places >= start)]  # steps over the sample's own class

    def _loss(self, u: Tensor, v: Tensor, drawn: Tensor) -> Tensor:
        """Return the loss of embeddings, given the rows of the positive and its negatives, ``[batch, 1 + negative]``.

        The slope is computed with the value: autograd would keep copies of all rows, and they change before backward.
        """
        sides = ((u, self.bank_teacher), (v, self.bank_student))
        with torch.no_grad():
            scores = [_products(anchors, bank, drawn) / self.temperature for anchors, bank in sides]
            constants = self._log_constants(scores)
            noise = math.log(self._num_drawn / len(self._indices))
        loss = u.new_zeros(())
        for (anchors, bank), score, constant in zip(sides, scores, constants, strict=True):
            with torch.no_grad():
                odds = score - constant - noise
                odds[:, 0].neg_()
                value = F.softplus(odds).sum(dim=1).mean()
                slopes = torch.sigmoid(odds) / len(odds)
                slopes[:, 0].neg_()
                slope = _mixtures(slopes, bank, drawn) / self.temperature
            loss = loss + value + ((anchors - anchors.detach()) * slope).sum()
        return loss

    def _log_constants(self, scores: list[Tensor]) -> Tensor:
        """Return ``log Z`` of both sides, ``[2]``: what the first batch of the training said, on all workers."""
        means = torch.stack([score.logsumexp(dim=(0, 1)) - math.log(score.numel()) for score in scores])
        shares = distributed.gather_rows(means[None])  # [worker, 2]
        estimate = shares.logsumexp(dim=0) - math.log(len(shares)) + math.log(len(self._indices))
        constants = torch.where(self.log_constants.isfinite(), self.log_constants, estimate)
        if self.training:
            self.log_constants.copy_(constants)
        return constants

    @torch.no_grad()
    def _remember(self, rows: Tensor, embeddings: Tensor) -> None:
        """Move the banks' rows towards all workers' embeddings of student and teacher, ``[batch, 2, dimension]``."""
        rows, embeddings = distributed.gather_rows(rows), distributed.gather_rows(embeddings)
        # A row that occurs twice gets the same value twice, so that all workers agree on what is written.
        order = rows.argsort(stable=True)
        last = order[torch.searchsorted(rows[order], rows, right=True) - 1]
        for bank, latest in zip((self.bank_student, self.bank_teacher), embeddings[last].unbind(1), strict=True):
            bank.index_copy_(0, rows, _unit(torch.lerp(latest, bank[rows], self.momentum)))


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=1, eps=EPSILON)


def _is_dense(bank: Tensor, drawn: Tensor) -> bool:
    return len(bank) <= DENSE * drawn.shape[1]


def _products(anchors: Tensor, bank: Tensor, drawn: Tensor) -> Tensor:
    """Return the inner products ``<anchors[i], bank[drawn[i, k]]>``, ``[batch, k]``.

    The drawn rows, ``[batch, k, dimension]``, are formed only where all samples would be far more.
    """
    if _is_dense(bank, drawn):
        return (anchors @ bank.mT).gather(1, drawn)
    return (bank[drawn] @ anchors[:, :, None])[:, :, 0]


def _mixtures(weights: Tensor, bank: Tensor, drawn: Tensor) -> Tensor:
    """Return the sums over ``k`` of ``weights[i, k] * bank[drawn[i, k]]``, ``[batch, dimension]``."""
    if _is_dense(bank, drawn):
        return weights.new_zeros(len(weights), len(bank)).scatter_add_(1, drawn, weights) @ bank
    return (weights[:, None] @ bank[drawn])[:, 0]
