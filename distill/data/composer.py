"""Composes scenes of handwritten digits from random numbers, in whole numbers throughout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distill.counter_random import derive_seed, uniform
from distill.data.ink import SIDE, Pixels, enlarge
from distill.data.scene import Scene
from distill.data.source import Indices

_NUM_TRIES = 8
_DRAWS_PER_SHAPE = 5 + 2 * _NUM_TRIES
_CHUNK = 256  # scenes that are made at a time

_LARGEST_LEAN = 16  # of 64: an angle of 14 degrees
_GRID = 5
_DARKEST, _LIGHTEST = 10, 120  # of the background
_DIMMEST, _BRIGHTEST = 140, 255  # of full ink
_NOISE = 24  # largest change of a pixel


@dataclass(frozen=True)
class Composer:
    """Composes scenes: an uneven background, unlabelled halves of digits, digits over them, and noise on everything.

    A scene depends on (seed, its number) and the options alone. A digit for which no place is found in eight tries,
    since it would hide too much of others there, is left out; the first is always there.

    Attributes:
        size: side of the scenes in pixels.
        min_digits: fewest digits that are tried.
        max_digits: most.
        min_side: shortest side of a digit in pixels.
        max_side: longest.
        max_clutter: most halves of digits in a scene.
    """

    size: int
    min_digits: int
    max_digits: int
    min_side: int
    max_side: int
    max_clutter: int

    def compose(self, digits: Pixels, labels: Indices, numbers: Indices, seed: int) -> Iterator[tuple[Tensor, Scene]]:
        """Give scenes and their images ``[height, width]``, uint8, noise included.

        Args:
            digits: ``[digit, 121]``, as :func:`~distill.data.ink.add_border` returns them; all others stay out.
            labels: ``[digit]``: the classes that they have in the scenes, from 1.
            numbers: ``[scene]``, from 0.
            seed: names the stream; see :func:`~distill.counter_random.derive_seed`.
        """
        for first in range(0, len(numbers), _CHUNK):
            chunk = numbers[first : first + _CHUNK]
            backgrounds = self._backgrounds(chunk, derive_seed(seed, "background"))
            noise = self._noise(chunk, derive_seed(seed, "noise"))
            num_shapes = self.max_clutter + self.max_digits
            counts = uniform(derive_seed(seed, "counts"), 0, chunk, 2).numpy()
            draws = uniform(derive_seed(seed, "shapes"), 0, chunk, num_shapes * _DRAWS_PER_SHAPE).numpy()
            shapes = draws.reshape(len(chunk), num_shapes, _DRAWS_PER_SHAPE)
            for place in range(len(chunk)):
                scene = Scene(backgrounds[place])
                self._add_clutter(scene, digits, counts[place, 0], shapes[place, : self.max_clutter])
                self._add_digits(scene, digits, labels, counts[place, 1], shapes[place, self.max_clutter :])
                yield torch.from_numpy(np.clip(scene.image + noise[place], 0, 255).astype(np.uint8)), scene

    def _add_clutter(self, scene: Scene, digits: Pixels, count: float, shapes: Pixels) -> None:
        """Smear 0 to ``max_clutter`` halves of digits."""
        for draws in shapes[: int(count * (self.max_clutter + 1))]:
            ink, shade = self._shape(digits[int(draws[0] * len(digits))], draws)
            half = -(-len(ink) // 2)
            top, left = (int(draw * (self.size - len(ink) + 1)) for draw in draws[5:7])
            scene.smear((ink[:half], ink[-half:], ink[:, :half], ink[:, -half:])[int(draws[4] * 4)], top, left, shade)

    def _add_digits(self, scene: Scene, digits: Pixels, labels: Indices, count: float, shapes: Pixels) -> None:
        """Add ``min_digits`` to ``max_digits`` digits, as far as there is a place for them."""
        num_digits = self.min_digits + int(count * (self.max_digits - self.min_digits + 1))
        for draws in shapes[:num_digits]:
            chosen = int(draws[0] * len(digits))
            ink, shade = self._shape(digits[chosen], draws)
            for place in draws[5:].reshape(_NUM_TRIES, 2):
                top, left = (int(draw * (self.size - len(ink) + 1)) for draw in place)
                if scene.add(ink, top, left, shade, int(labels[chosen])):
                    break

    def _shape(self, digit: Pixels, draws: Pixels) -> tuple[Pixels, int]:
        """Return a digit's ink ``[side, side]`` and its shade, both drawn."""
        side = self.min_side + int(draws[1] * (self.max_side - self.min_side + 1))
        lean = int(draws[2] * (2 * _LARGEST_LEAN + 1)) - _LARGEST_LEAN
        return enlarge(digit, side, lean), _DIMMEST + int(draws[3] * (_BRIGHTEST - _DIMMEST + 1))

    def _backgrounds(self, numbers: Indices, seed: int) -> Pixels:
        """Return ``[scene, height, width]``: a grid of drawn grey levels, made smooth."""
        draws = uniform(seed, 0, numbers, _GRID * _GRID).numpy().reshape(len(numbers), _GRID, _GRID)
        levels = _DARKEST + np.floor(draws * (_LIGHTEST - _DARKEST + 1)).astype(np.int64)
        positions = np.arange(self.size) * (256 * (_GRID - 1)) // (self.size - 1)  # in 256ths of the grid's spacing
        distances = np.abs(positions[:, None] - 256 * np.arange(_GRID)[None, :])
        weights = np.maximum(256 - distances, 0)  # [pixel, node]
        smooth: Pixels = np.matmul(np.matmul(weights, levels), weights.T) >> 16
        return smooth

    def _noise(self, numbers: Indices, seed: int) -> Pixels:
        """Return ``[scene, height, width]``, from ``-_NOISE`` to ``_NOISE``; a draw's four bytes serve four pixels."""
        num_pixels = self.size * self.size
        words = uniform(seed, 0, numbers, -(-num_pixels // 4)).numpy() * 2.0**32
        levels = words.astype("<u4").view(np.uint8)[:, :num_pixels].astype(np.int64)
        return (levels * (2 * _NOISE + 1) // 256 - _NOISE).reshape(len(numbers), self.size, self.size)


def smallest_canvas(max_digits: int, max_side: int) -> int:
    """Return the side in pixels that a scene needs so that most of its digits find a place."""
    across = next(number for number in range(1, max_digits + 1) if number * number >= max_digits)
    return max(max_side, SIDE * across)
