"""Factor transfer: the teacher's map, put in the words that an autoencoder found for it."""

from __future__ import annotations

from torch import nn

from distill.options import finite
from distill.paths.base import TapChoice
from distill.paths.translated import Autoencoder, TranslatedPath

SLOPE = 0.1  # of the leaky ReLU, as in the authors' code


class FT(TranslatedPath):
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
        taps: ``auto`` (the paper: the deepest features; every level of a pyramid), or a list of
            ``{student: NAME, teacher: NAME}``.
        paraphrase_rate: channels of a factor, as a share of the teacher's; above 0.
        pretrain: share of the training in which the paraphraser learns, at least 0 and below 1; with 0 it stays as it
            was initialised.

    Raises:
        ValueError: an option is out of bounds.
    """

    def __init__(self, taps: TapChoice = "auto", paraphrase_rate: float = 0.5, pretrain: float = 0.1) -> None:
        super().__init__(taps, pretrain)
        self.paraphrase_rate = finite("paraphrase_rate", paraphrase_rate, above=0)

    def make(self, in_channels: int, out_channels: int) -> tuple[Autoencoder, nn.Module]:
        """Return a new paraphraser and a new translator."""
        factors = max(1, round(self.paraphrase_rate * out_channels))
        encoder = _encoder(out_channels, factors)
        decoder = _layers(
            nn.ConvTranspose2d(factors, factors, kernel_size=3, padding=1, bias=False),
            nn.ConvTranspose2d(factors, out_channels, kernel_size=3, padding=1, bias=False),
            nn.ConvTranspose2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
        )
        return Autoencoder(encoder, decoder), _encoder(in_channels, factors)


def _encoder(channels: int, factors: int) -> nn.Sequential:
    return _layers(
        nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False),
        nn.Conv2d(channels, factors, kernel_size=3, padding=1, bias=False),
        nn.Conv2d(factors, factors, kernel_size=3, padding=1, bias=False),
    )


def _layers(*convolutions: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    layers: list[nn.Module] = []
    for convolution in convolutions:
        layers += [convolution, nn.BatchNorm2d(convolution.out_channels), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)
