"""Focal and global distillation: objects, background and their relations, each by itself."""

from __future__ import annotations

from itertools import chain
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.batch import Batch
from distill.options import finite
from distill.paths.base import TapChoice, Taps, Target, key, no_autocast, widen
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WholeMapPath
from distill.taps import Probe


class FGD(WholeMapPath):
    """Matches objects and background apart, where the teacher attends to, and how positions relate to the whole image.

    For each level, with the teacher's map ``t`` and the student's ``s``, ``[channel, height, width]``, which passes a
    1x1 convolution where the widths differ, ``C`` channels and ``N`` positions; sums are over what is indexed::

        P(f) = N softmax over i of (mean over c of |f[c, i]|) / T        attention by position
        Q(f) = C softmax over c of (mean over i of |f[c, i]|) / T        attention by channel
        m[i] = 1 / positions of the smallest object at i, 0 at the background       b[i] = 1 / positions of background
        focal     = sum (alpha m[i] + beta b[i]) P(t)[i] Q(t)[c] (t[c, i] - s[c, i])^2
        attention = gamma (sum |P(t) - P(s)| + sum |Q(t) - Q(s)|)
        global    = lambda_ sum (R(t)[c, i] - R'(s)[c, i])^2
        loss      = mean over batch of focal + attention + global

    ``R(f) = f + W2 relu(layer norm(W1 sum over i of softmax(w f)[i] f[., i]))`` adds to every position what a learned
    attention ``w`` sees in the whole map (``W2`` starts at zero); ``R'`` has weights of its own, and both learn.

    Objects are the boxes of the labels without ignored ones, scaled from the image that the models see to the map; one
    covers each position that it overlaps. An image without any is all background. Maps of different size are brought to
    the smaller height and width first, by adaptive average pooling of the larger. The target is the teacher's map.

    Source: Yang et al. 2022, *Focal and global knowledge distillation for detectors* (CVPR, arXiv:2111.11837),
    equations 1 to 11. The defaults are the authors' for RetinaNet. Theirs for FCOS are ``alpha`` 1.6e-3, ``beta`` 8e-4,
    ``gamma`` 8e-4, ``lambda_`` 8e-6 and ``temperature`` 0.8; for Faster R-CNN 5e-5, 2.5e-5, 5e-5, 5e-7 and 0.5. They
    are for sums over maps of 256 channels and images of 1333 x 800. Where their code differs: it exchanges rows and
    columns when it fills in the boxes, takes in one position too many on the right and at the bottom, scales by the
    size before padding, and refuses maps of different size.

    Args:
        taps: ``auto`` (every level, or stage), or a list of ``{student: NAME, teacher: NAME}``.
        alpha: weight of the objects, at least 0.
        beta: weight of the background.
        gamma: weight of the attention.
        lambda_: weight of the relations.
        temperature: ``T``, above 0.

    Raises:
        ValueError: an option is out of bounds.
    """

    needs_labels = ("objects",)

    def __init__(
        self,
        taps: TapChoice = "auto",
        alpha: float = 1e-3,
        beta: float = 5e-4,
        gamma: float = 1e-3,
        lambda_: float = 5e-6,
        temperature: float = 0.5,
    ) -> None:
        super().__init__(taps)
        self.alpha = finite("alpha", alpha, at_least=0)
        self.beta = finite("beta", beta, at_least=0)
        self.gamma = finite("gamma", gamma, at_least=0)
        self.lambda_ = finite("lambda_", lambda_, at_least=0)
        self.temperature = finite("temperature", temperature, above=0)

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build an alignment, where the widths differ, and the relations of both sides, for each pair."""
        self.alignments = nn.ModuleDict()
        self.relations = nn.ModuleDict()
        for pair in self.pairs:
            narrow, wide = student[pair.student].channels, teacher[pair.teacher].channels
            align = nn.Identity() if narrow == wide else nn.Conv2d(narrow, wide, kernel_size=1)
            self.alignments[key(pair.layer)] = align
            self.relations[key(pair.layer)] = nn.ModuleList([_Relation(wide), _Relation(wide)])

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of every pair.

        Raises:
            ValueError: the images are not labelled with objects.
        """
        losses = {}
        for pair in self.pairs:
            student = widen(taps[pair.student])
            with no_autocast(student):
                own, wanted = pooled_alike(student, widen(target[pair.layer]))
                weights = self._weights(batch, wanted)
                losses[pair.layer] = self._loss(pair.layer, own, wanted, weights)
        return losses

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a pair where all is background."""
        nothing = target.new_full((len(target), 1, *target.shape[2:]), self.beta / target[0, 0].numel())
        return self._loss(layer, student, target, nothing)

    def _loss(self, layer: str, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        student = self.alignments[key(layer)](student)
        by_position, by_channel = self._attention(teacher)
        own_by_position, own_by_channel = self._attention(student)
        focal = (weights * by_position * by_channel * (teacher - student).square()).sum()
        attention = (by_position - own_by_position).abs().sum() + (by_channel - own_by_channel).abs().sum()
        of_student, of_teacher = cast(nn.ModuleList, self.relations[key(layer)])
        relations = (of_teacher(teacher) - of_student(student)).square().sum()
        total: Tensor = focal + self.gamma * attention + self.lambda_ * relations
        return total / len(teacher)

    def _attention(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention by position ``[batch, 1, height, width]`` and by channel ``[batch, channel, 1, 1]``."""
        sizes = maps.abs()
        by_position = F.softmax(sizes.mean(dim=1).flatten(1) / self.temperature, dim=1) * sizes[0, 0].numel()
        by_channel = F.softmax(sizes.mean(dim=(2, 3)) / self.temperature, dim=1) * maps.shape[1]
        return by_position.view(len(maps), 1, *maps.shape[2:]), by_channel[:, :, None, None]

    def _weights(self, batch: Batch, maps: Tensor) -> Tensor:
        """Return what each position counts, ``[batch, 1, height, width]``: ``alpha m + beta b``."""
        objects = batch.objects
        height, width = batch.images.shape[2:]
        scale = maps.new_tensor([maps.shape[3] / width, maps.shape[2] / height] * 2)
        weights = []
        for boxes, ignored in zip(objects.boxes, objects.ignored, strict=True):
            inside = _shares(boxes[~ignored].to(maps) * scale, (maps.shape[2], maps.shape[3]))
            background = (inside == 0).to(maps)
            weights.append(self.alpha * inside + self.beta * background / background.sum().clamp_min(1))
        return torch.stack(weights)[:, None]


def _shares(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return, at each position, 1 / the number of positions of the smallest box there, or 0; ``[height, width]``.

    Args:
        boxes: ``[box, 4]``, left, top, right, bottom in positions of the map.
        size: height and width of the map.
    """
    inside = []
    for axis, positions in ((1, size[0]), (0, size[1])):
        first = boxes[:, axis].floor().clamp(0, positions - 1)
        last = torch.maximum(boxes[:, axis + 2].ceil() - 1, first)
        place = torch.arange(positions, device=boxes.device)
        inside.append((place >= first[:, None]) & (place <= last[:, None]))  # [box, position]
    areas = (inside[0].sum(dim=1) * inside[1].sum(dim=1)).to(boxes)
    covered = (inside[0][:, :, None] & inside[1][:, None]) / areas[:, None, None]
    return torch.cat([covered.new_zeros(1, *size), covered]).amax(dim=0)


class _Relation(nn.Module):
    """Adds to each position of a map what a learned attention sees in the whole of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(channels // 2, 1)
        self.mask = nn.Conv2d(channels, 1, kernel_size=1)
        self.entry = nn.Linear(channels, narrow)
        self.norm = nn.LayerNorm(narrow)
        self.exit = nn.Linear(narrow, channels)
        nn.init.kaiming_normal_(self.mask.weight, mode="fan_in", nonlinearity="relu")
        for parameter in chain(self.exit.parameters(), [self.mask.bias]):
            nn.init.zeros_(cast(Tensor, parameter))

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``[batch, channel, height, width]`` to the same shape."""
        attention = F.softmax(self.mask(maps).flatten(1), dim=1)  # [batch, position]
        context = (maps.flatten(2) @ attention[:, :, None])[:, :, 0]  # [batch, channel]
        added: Tensor = self.exit(F.relu(self.norm(self.entry(context))))
        return maps + added[:, :, None, None]
