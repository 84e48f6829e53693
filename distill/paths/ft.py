"""Factor transfer: the teacher's map, put in the words that an autoencoder found for it."""

from __future__ import annotations

import copy
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill import distributed
from distill.batch import Batch
from distill.options import finite
from distill.paths.base import TapChoice, Taps, Target, key, no_autocast, widen
from distill.paths.sizes import pooled_alike
from distill.paths.whole_map import WholeMapPath
from distill.taps import Probe

EPSILON = 1e-6  # shorter factors are divided by this, which bounds the gradient of a student that is silent
SLOPE = 0.1  # of the leaky ReLU, as in the authors' code


class FT(WholeMapPath):
    """Matches factors: an encoding of the teacher's map, with what a translator makes of the student's map.

    A *paraphraser* learns to encode the teacher's map ``t`` in fewer channels and to decode it again (three 3x3
    convolutions, then three transposed ones, each followed by BatchNorm and a leaky ReLU). A *translator*, built as the
    encoder, reads the student's map ``s``. With ``unit`` for a whole map divided by its length::

        first, until the share pretrain of the training:
        loss = mean over batch, channels and positions of (decode(encode(t)) - t)^2
        then:
        loss = mean over batch and entries of |unit(translate(s)) - unit(encode(t))|

    In the first phase only the paraphraser learns: student and translator get no gradient. In the second it is
    the other way round, and ``encode`` is a copy of the encoder, with BatchNorm's running statistics, as the last step
    of the first phase found it. The copy is kept in buffers, where no optimiser reaches it; the paraphraser itself gets
    no gradient, or with several workers one of zero, by which weight decay and momentum still move it, which counts no
    more. What a phase does not need it does not compute.

    An aggregator that adapts weights sees the loss change its meaning at ``pretrain``. A ``schedule`` scales the
    paraphraser's gradient too: one that starts late leaves it untrained.

    The target is the teacher's map. Where height or width differ, the larger factor is averaged down.

    Source: Kim et al. 2018, *Paraphrasing complex network: network compression via factor transfer* (arXiv:1802.04977),
    with ``p = 1``; widths, kernels and the mean over entries as in the authors' code, whose weight for this loss is
    500. Departures: they train the paraphraser beforehand, for some epochs of its own; here that is part of the
    training. Their code reconstructs by absolute error where the paper squares, and leaves out BatchNorm where the
    paper has it; this is the paper's form. Factors shorter than 1e-6 are divided by that (their code: 1e-12).
    RepDistiller does not compare factors but their attention maps.

    Args:
        taps: ``auto`` (the paper: the deepest features), or a list of ``{student: NAME, teacher: NAME}``.
        paraphrase_rate: channels of a factor, as a share of the teacher's; above 0.
        pretrain: share of the training in which the paraphraser learns, at least 0 and below 1; with 0 it stays as it
            was initialised.

    Raises:
        ValueError: an option is out of bounds.
    """

    only_last = True

    def __init__(self, taps: TapChoice = "auto", paraphrase_rate: float = 0.5, pretrain: float = 0.1) -> None:
        super().__init__(taps)
        self.paraphrase_rate = finite("paraphrase_rate", paraphrase_rate, above=0)
        self.pretrain = finite("pretrain", pretrain, at_least=0)
        if self.pretrain >= 1:
            raise ValueError(f"pretrain must be a share of the training, at least 0 and below 1, found {pretrain!r}")

    def advance(self, progress: float) -> None:
        """Go over to the second phase where ``pretrain`` is reached."""
        self.learns = progress < self.pretrain

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build a paraphraser and a translator a pair."""
        self.advance(0.0)
        self.paraphrasers = nn.ModuleDict()
        self.translators = nn.ModuleDict()
        for pair in self.pairs:
            channels = teacher[pair.teacher].channels
            factors = max(1, round(self.paraphrase_rate * channels))
            self.paraphrasers[key(pair.layer)] = Paraphraser(channels, factors)
            self.translators[key(pair.layer)] = _encoder(student[pair.student].channels, factors)

    def paraphraser(self, layer: str) -> Paraphraser:
        """Return what encodes a layer's teacher map."""
        return cast(Paraphraser, self.paraphrasers[key(layer)])

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the paraphraser's loss in the first phase, then :meth:`layer_loss`, of every pair."""
        if self.learns:
            losses = {layer: self._error(layer, target) for layer in self.layers}
            waiting = self.translators
        else:
            losses = super().forward(taps, self._factors(target), batch)
            waiting = self.paraphrasers
        if not distributed.is_active():
            return losses
        # DDP waits for the gradient of every parameter, also of those whose gradient is zero.
        return {layer: loss + _nothing(waiting[key(layer)]).to(loss) for layer, loss in losses.items()}

    def _error(self, layer: str, target: Target) -> Tensor:
        teacher = widen(target[layer])
        with no_autocast(teacher):
            return self.paraphraser(layer).error(teacher)

    def _factors(self, target: Target) -> Target:
        factors = {}
        for layer in self.layers:
            teacher = widen(target[layer])
            with no_autocast(teacher):
                factors[layer] = self.paraphraser(layer).frozen(teacher)
        return factors

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Compare what the translator makes of the student's map with a factor of the teacher, ``target``."""
        own, factor = pooled_alike(self.translators[key(layer)](student), target)
        return F.l1_loss(_unit(own), _unit(factor))


class Paraphraser(nn.Module):
    """An autoencoder of the teacher's map, and a copy of its encoder that follows it as long as it learns.

    Args:
        channels: width of the teacher's map.
        factors: width of its encoding.
    """

    def __init__(self, channels: int, factors: int) -> None:
        super().__init__()
        self.encoder = _encoder(channels, factors)
        self.decoder = nn.Sequential(
            *_layer(nn.ConvTranspose2d(factors, factors, kernel_size=3, padding=1, bias=False)),
            *_layer(nn.ConvTranspose2d(factors, channels, kernel_size=3, padding=1, bias=False)),
            *_layer(nn.ConvTranspose2d(channels, channels, kernel_size=3, padding=1, bias=False)),
        )
        self.frozen = _Frozen(self.encoder)

    def error(self, teacher: Tensor) -> Tensor:
        """Return the error of reconstruction, scalar, of the map ``[batch, channel, height, width]``."""
        error = F.mse_loss(self.decoder(self.encoder(teacher)), teacher)
        if self.training:
            self.frozen.follow(self.encoder)
        return error


class _Frozen(nn.Module):
    """A copy of a module in evaluation mode, all of it in buffers, so that it is saved but never optimised."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        for owner in self.module.modules():
            for name, parameter in list(owner.named_parameters(recurse=False)):
                delattr(owner, name)
                owner.register_buffer(name, parameter.detach())
        self.train()

    def train(self, mode: bool = True) -> _Frozen:
        """Stay in evaluation mode, whatever ``mode`` says."""
        super().train(False)
        return self

    @torch.no_grad()
    def follow(self, module: nn.Module) -> None:
        """Become equal to ``module``, with the mean of all ranks' running statistics."""
        own, buffers = dict(self.module.named_buffers()), dict(module.named_buffers())
        statistics = {name: value for name, value in buffers.items() if value.is_floating_point()}
        means = distributed.mean(torch.cat([value.flatten() for value in statistics.values()]))
        shares = torch.split(means, [value.numel() for value in statistics.values()])
        news = {**dict(module.named_parameters()), **buffers, **dict(zip(statistics, shares, strict=True))}
        for name, old in own.items():
            old.copy_(news[name].view_as(old))

    def forward(self, maps: Tensor) -> Tensor:
        """Return what the copied module makes of ``maps``."""
        result: Tensor = self.module(maps)
        return result


def _encoder(channels: int, factors: int) -> nn.Sequential:
    return nn.Sequential(
        *_layer(nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)),
        *_layer(nn.Conv2d(channels, factors, kernel_size=3, padding=1, bias=False)),
        *_layer(nn.Conv2d(factors, factors, kernel_size=3, padding=1, bias=False)),
    )


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(SLOPE)


def _nothing(module: nn.Module) -> Tensor:
    """Return a zero that gives every parameter of ``module`` a gradient of zeros."""
    return torch.stack([parameter.sum() for parameter in module.parameters()]).sum() * 0


def _unit(factors: Tensor) -> Tensor:
    return F.normalize(factors.flatten(1), dim=1, eps=EPSILON)  # [batch, factor]
