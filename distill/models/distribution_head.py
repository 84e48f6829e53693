"""A head that says of each side of a box how likely each distance is."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DFL_WEIGHT = 0.25
"""Weight of the distribution focal loss, as in the paper."""


class DistributionHead(nn.Module):
    """The head of an FCOS, whose boxes are expectations of a distribution of each side's distance.

    A side lies 0, 1, ..., or ``num_bins - 1`` anchors' sides away, each with the probability that a softmax gives it;
    the box has the mean of them. The loss of the boxes is FCOS's, and the distribution focal loss on top: for a side
    that truly lies at ``y``, between ``i`` and ``i + 1``, ``-(i + 1 - y) log p(i) - (y - i) log p(i + 1)``, the mean
    over sides and objects' locations. Sides farther away than the last bin count as if they lay there.

    Source: Li et al. 2020, *Generalized focal loss: learning qualified and distributed bounding boxes for dense object
    detection* (NeurIPS, arXiv:2006.04388), section 3, the distributions and their loss. Their quality focal loss is not
    here: centreness and classes remain those of FCOS.

    Args:
        fcos: torchvision's ``FCOSHead`` with one anchor a place; its layer for boxes is replaced.
        num_bins: distances of a side; the paper has 17, for anchors of one stride.

    Raises:
        ValueError: there are fewer than two bins.
    """

    def __init__(self, fcos: Any, num_bins: int = 17) -> None:
        super().__init__()
        if num_bins < 2:
            raise ValueError(f"num_bins must be at least 2, found {num_bins!r}")
        self.num_bins = num_bins
        self.fcos = fcos
        plain = fcos.regression_head.bbox_reg
        layer = nn.Conv2d(plain.in_channels, 4 * num_bins, kernel_size=3, padding=1)
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        fcos.regression_head.bbox_reg = layer

    def forward(self, levels: list[Tensor]) -> dict[str, Tensor]:
        """Return, by torchvision's names, ``[batch, location, channel]`` each.

        ``box_distribution`` is torchvision's none: the logits of all distances, side by side (left, top, right,
        bottom), ``[batch, location, 4 * num_bins]``.
        """
        branch = self.fcos.regression_head
        features = [branch.conv(level) for level in levels]
        distribution = torch.cat([branch.bbox_reg(each).flatten(2) for each in features], dim=2)
        centerness = torch.cat([branch.bbox_ctrness(each).flatten(2) for each in features], dim=2)
        return {
            "cls_logits": self.fcos.classification_head(levels),
            "bbox_regression": self.distances(distribution).transpose(1, 2),
            "bbox_ctrness": centerness.transpose(1, 2),
            "box_distribution": distribution.transpose(1, 2),
        }

    def distances(self, distribution: Tensor) -> Tensor:
        """Return the mean distance of each side, ``[batch, 4, location]``, of logits ``[batch, 4 * bin, location]``."""
        sides = distribution.reshape(len(distribution), 4, self.num_bins, -1)
        steps = torch.arange(self.num_bins, dtype=torch.float32, device=sides.device)
        # No product of matrices, which would run in half precision under autocast.
        return (sides.float().softmax(dim=2) * steps[:, None]).sum(dim=2)

    def compute_loss(
        self,
        targets: list[dict[str, Tensor]],
        head_outputs: dict[str, Tensor],
        anchors: list[Tensor],
        matched_idxs: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return the losses by name: FCOS's and ``bbox_distribution``; torchvision calls it from ``FCOS.compute_loss``.

        Args:
            targets: image by image ``boxes`` and ``labels``.
            head_outputs: what :meth:`forward` returned.
            anchors: image by image ``[location, 4]``.
            matched_idxs: image by image the number of the object that a location is trained on, -1 for none,
                ``[location]``.
        """
        losses: dict[str, Tensor] = self.fcos.compute_loss(targets, head_outputs, anchors, matched_idxs)
        sums, count = head_outputs["box_distribution"].sum() * 0, 0
        for image, (target, places, matched) in enumerate(zip(targets, anchors, matched_idxs, strict=True)):
            positive = matched >= 0
            wanted = self.fcos.box_coder.encode(places[positive], target["boxes"][matched[positive]])  # [positive, 4]
            sums = sums + self._focal(head_outputs["box_distribution"][image][positive], wanted).sum()
            count += len(wanted)
        return {**losses, "bbox_distribution": DFL_WEIGHT * sums / (4 * max(count, 1))}

    def _focal(self, logits: Tensor, distances: Tensor) -> Tensor:
        """Return the distribution focal loss of each side, ``[location, 4]``."""
        last = self.num_bins - 1
        distances = distances.clamp(0, last)
        below = distances.floor().clamp_max(last - 1)
        logs = F.log_softmax(logits.float().reshape(-1, 4, self.num_bins), dim=2)
        near, far = (logs.gather(2, (below.long() + step)[:, :, None])[:, :, 0] for step in (0, 1))
        share = distances - below
        return -(1 - share) * near - share * far
