"""Feature map: how strongly does each channel respond?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from distill.paths.base import AdaptedFeaturePath


class FeatureMap(AdaptedFeaturePath):
    """Matches how strongly each channel responds on average over the image.

    For each stage, with adapted student features ``s`` and teacher features ``t``, ``[channel, height, width]``::

        loss = mean over batch and channels of (mean over positions of s - mean over positions of t)^2

    The target is the teacher's mean, ``[batch, channel]``. Student and teacher may differ in height and width.

    Source: the feature loss of Yang et al. 2021, *Knowledge distillation via softmax regression representation
    learning* (ICLR), in the form of Chennupati et al. 2021 (arXiv:2110.09674), who sum it over all stages; the former
    uses the last stage alone, with a ReLU behind the adapter. Departure: the adapters belong to this path, while the
    paper's code shares them.

    Args:
        taps: ``auto`` (the paper: every stage), or a list of ``{student: NAME, teacher: NAME}``.
    """

    target_options = ()

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        return teacher.mean(dim=(2, 3))

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(self.adapter(layer).means(student), target)
