"""Taps: named activations, read out of unmodified models by forward hook, and paired between models of any family."""

from distill.taps.pairing import TapPair, pair_before_activation, pair_last, pair_named, pair_stages
from distill.taps.probing import Probe, probe
from distill.taps.reader import TapReader
from distill.taps.tap import INPUT, OUTPUT, Layout, Tap

__all__ = [
    "INPUT",
    "OUTPUT",
    "Layout",
    "Probe",
    "Tap",
    "TapPair",
    "TapReader",
    "pair_before_activation",
    "pair_last",
    "pair_named",
    "pair_stages",
    "probe",
]
