"""Knowledge translation and adaptation: the teacher's map for dense prediction, without what is redundant in it."""

from __future__ import annotations

from torch import nn

from distill.options import finite
from distill.paths.base import TapChoice
from distill.paths.translated import Autoencoder, TranslatedPath


class KTA(TranslatedPath):
    """Matches the teacher's map as an autoencoder compresses it with what an adapter makes of the student's map.

    The *translator* is an autoencoder of the teacher's map ``t``: three 3x3 convolutions encode it in fewer channels,
    of which as few as possible shall respond, three transposed ones decode it again; each is followed by BatchNorm and
    ReLU, but for the last, behind which there is neither. The *adapter* of the student's map ``s`` is a 3x3 convolution
    with BatchNorm and ReLU. With ``unit`` for a whole map divided by its length::

        first, until the share pretrain of the training:
        loss = mean over batch, channels and positions of (decode(encode(t)) - t)^2
             + sparsity * mean over batch, channels and positions of |encode(t)|
        then:
        loss = mean over batch and entries of |unit(adapt(s)) - unit(encode(t))|

    In the first phase only the translator learns: student and adapter get no gradient. In the second it is the other
    way round, and ``encode`` is a copy of the encoder, with BatchNorm's running statistics, as the last step of the
    first phase found it; it is kept in buffers, where no optimiser reaches it. An aggregator that adapts weights sees
    the loss change its meaning at ``pretrain``. A ``schedule`` scales the translator's gradient too: one that starts
    late leaves it untrained. ``Affinity`` is the other half of the paper; use both together.

    The target is the teacher's map. Where height or width differ, the larger encoding is averaged down.

    Source: He et al. 2019, *Knowledge adaptation for efficient semantic segmentation* (CVPR, arXiv:1903.04688), its
    knowledge translation and feature adaptation with the norms 1 (of the difference) and 2 (of the maps), as in
    torchdistill, from which is also the form of the adapter. There is no code of the authors, and widths, strides,
    kernels and weights of the paper could not be checked: those here are as in ``FT``, and the small default of
    ``sparsity`` only breaks ties. Departures: they train the translator beforehand, here that is part of the training;
    torchdistill takes for it the paraphraser of ``FT``, without the term for sparsity.

    Args:
        taps: ``auto`` (the paper: the deepest features; every level of a pyramid), or a list of
            ``{student: NAME, teacher: NAME}``.
        rate: channels of the encoding, as a share of the teacher's; above 0.
        sparsity: weight of the encoding's magnitude, at least 0.
        pretrain: share of the training in which the translator learns, at least 0 and below 1; with 0 it stays as it
            was initialised.

    Raises:
        ValueError: an option is out of bounds.
    """

    def __init__(
        self, taps: TapChoice = "auto", rate: float = 0.5, sparsity: float = 1e-7, pretrain: float = 0.1
    ) -> None:
        super().__init__(taps, pretrain)
        self.rate = finite("rate", rate, above=0)
        self.sparsity = finite("sparsity", sparsity, at_least=0)

    def make(self, in_channels: int, out_channels: int) -> tuple[Autoencoder, nn.Module]:
        """Return a new autoencoder and a new adapter."""
        width = max(1, round(self.rate * out_channels))
        encoder = nn.Sequential(
            *_layer(nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)),
            *_layer(nn.Conv2d(out_channels, width, kernel_size=3, padding=1, bias=False)),
            *_layer(nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)),
        )
        decoder = nn.Sequential(
            *_layer(nn.ConvTranspose2d(width, width, kernel_size=3, padding=1, bias=False)),
            *_layer(nn.ConvTranspose2d(width, out_channels, kernel_size=3, padding=1, bias=False)),
            nn.ConvTranspose2d(out_channels, out_channels, kernel_size=3, padding=1),
        )
        adapter = nn.Sequential(*_layer(nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False)))
        return Autoencoder(encoder, decoder, self.sparsity), adapter


def _layer(convolution: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, nn.Module, nn.Module]:
    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()
