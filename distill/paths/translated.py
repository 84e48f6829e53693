"""What paths share that put the teacher's map in other words first: an autoencoder, and who learns when."""

from __future__ import annotations

import copy
from abc import abstractmethod
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

EPSILON = 1e-6  # shorter encodings are divided by this, which bounds the gradient of a student that is silent


class TranslatedPath(WholeMapPath):
    """A path between an encoding of the teacher's map and what a translator makes of the student's map.

    Until the share ``pretrain`` of the training the autoencoder alone learns, and the loss is its error; then the
    translator and the student learn, and the loss is :meth:`layer_loss` between their map and what a frozen copy of the
    encoder makes of the teacher's. What a phase does not need it does not compute. With several workers, what does not
    learn gets a gradient of zero.

    Args:
        taps: ``auto`` (the deepest features; every level of a pyramid), or a list of
            ``{student: NAME, teacher: NAME}``.
        pretrain: share of the training in which the autoencoder learns, at least 0 and below 1; with 0 it stays as it
            was initialised.

    Raises:
        ValueError: ``pretrain`` is out of bounds.
    """

    only_last = True

    def __init__(self, taps: TapChoice = "auto", pretrain: float = 0.1) -> None:
        super().__init__(taps)
        self.pretrain = finite("pretrain", pretrain, at_least=0)
        if self.pretrain >= 1:
            raise ValueError(f"pretrain must be a share of the training, at least 0 and below 1, found {pretrain!r}")

    def advance(self, progress: float) -> None:
        """Go over to the second phase where ``pretrain`` is reached."""
        self.learns = progress < self.pretrain

    def build(self, student: Probe, teacher: Probe) -> None:
        """Build an autoencoder and a translator a pair."""
        self.advance(0.0)
        self.paraphrasers = nn.ModuleDict()
        self.translators = nn.ModuleDict()
        for pair in self.pairs:
            own, other = student[pair.student].channels, teacher[pair.teacher].channels
            self.paraphrasers[key(pair.layer)], self.translators[key(pair.layer)] = self.make(own, other)

    @abstractmethod
    def make(self, in_channels: int, out_channels: int) -> tuple[Autoencoder, nn.Module]:
        """Return a new autoencoder for teacher maps, and a new translator of student maps to as wide an encoding.

        Args:
            in_channels: width of the student's map.
            out_channels: width of the teacher's map.
        """

    def paraphraser(self, layer: str) -> Autoencoder:
        """Return what encodes a layer's teacher map."""
        return cast(Autoencoder, self.paraphrasers[key(layer)])

    def forward(self, taps: Taps, target: Target, batch: Batch) -> dict[str, Tensor]:
        """Return the autoencoder's loss in the first phase, then :meth:`layer_loss`, of every pair."""
        if self.learns:
            losses = {layer: self._error(layer, target) for layer in self.layers}
            waiting = self.translators
        else:
            losses = super().forward(taps, self._encodings(target), batch)
            waiting = self.paraphrasers
        if not distributed.is_active():
            return losses
        # DDP waits for the gradient of every parameter, also of those whose gradient is zero.
        return {layer: loss + _nothing(waiting[key(layer)]).to(loss) for layer, loss in losses.items()}

    def _error(self, layer: str, target: Target) -> Tensor:
        teacher = widen(target[layer])
        with no_autocast(teacher):
            return self.paraphraser(layer).error(teacher)

    def _encodings(self, target: Target) -> Target:
        encodings = {}
        for layer in self.layers:
            teacher = widen(target[layer])
            with no_autocast(teacher):
                encodings[layer] = self.paraphraser(layer).frozen(teacher)
        return encodings

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        """Compare what the translator makes of the student's map with an encoding of the teacher's, ``target``."""
        own, other = pooled_alike(self.translators[key(layer)](student), target)
        return F.l1_loss(_unit(own), _unit(other))


class Autoencoder(nn.Module):
    """An autoencoder of the teacher's map, and a copy of its encoder that follows it as long as it learns.

    Args:
        encoder: maps ``[batch, channel, height, width]`` to an encoding.
        decoder: maps the encoding back.
        sparsity: weight of the mean magnitude of the encoding in the error.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, sparsity: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.sparsity = sparsity
        self.frozen = _Frozen(self.encoder)

    def error(self, teacher: Tensor) -> Tensor:
        """Return the error of reconstruction, scalar, of the map ``[batch, channel, height, width]``."""
        encoding = self.encoder(teacher)
        error = F.mse_loss(self.decoder(encoding), teacher)
        if self.training:
            self.frozen.follow(self.encoder)
        return error + self.sparsity * encoding.abs().mean() if self.sparsity else error


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


def _nothing(module: nn.Module) -> Tensor:
    """Return a zero that gives every parameter of ``module`` a gradient of zeros."""
    return torch.stack([parameter.sum() for parameter in module.parameters()]).sum() * 0


def _unit(encodings: Tensor) -> Tensor:
    return F.normalize(encodings.flatten(1), dim=1, eps=EPSILON)  # [batch, value]
