"""Taps: named activations, read out of unmodified models by forward hook, and paired between models of any family."""

from distill.taps.head import Head, LocationHead, RegionHead
from distill.taps.pairing import TapPair, pair_before_activation, pair_last, pair_named, pair_stages
from distill.taps.probing import Probe, probe
from distill.taps.reader import TapReader
from distill.taps.tap import BOX_DISTRIBUTION, BOXES, INPUT, LEVEL, OUTPUT, Layout, Tap, is_output

__all__ = [
    "BOXES",
    "BOX_DISTRIBUTION",
    "INPUT",
    "LEVEL",
    "OUTPUT",
    "Head",
    "Layout",
    "LocationHead",
    "Probe",
    "RegionHead",
    "Tap",
    "TapPair",
    "TapReader",
    "is_output",
    "pair_before_activation",
    "pair_last",
    "pair_named",
    "pair_stages",
    "probe",
]
