"""Random numbers as a pure function of (seed, epoch, sample): a counter-based generator, vectorised.

Sequential generators tie a number to how many were drawn before it, hence to batch size, order and worker count.
Here the sample's index *is* the counter: a sample gets the same numbers wherever and whenever it is asked for.

Source: Philox4x32-10 of Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Words = npt.NDArray[np.uint64]

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_NUM_ROUNDS = 10
_MASK = 0xFFFFFFFF
_WORD = np.uint64(_MASK)
_SHIFT = np.uint64(32)
_WORDS_PER_BLOCK = 4


def derive_seed(*parts: int | str) -> int:
    """Return the 63-bit seed of a named stream, such as ``derive_seed(seed, "student")``.

    It is the head of the SHA-256 of the parts' ``repr``, the same in every process, on every machine and Python.

    Raises:
        ValueError: a part is neither a plain int nor a str (the ``repr`` of others differs between versions).
    """
    for part in parts:
        if type(part) not in (int, str):
            raise ValueError(f"parts of a seed must be plain int or str, found {part!r} of {type(part).__name__}")
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def philox4x32(counters: Words, key: tuple[int, int]) -> Words:
    """Apply the ten rounds of Philox4x32 to each counter.

    Args:
        counters: ``[count, 4]``, 32-bit words held in uint64.
        key: two 32-bit words.

    Returns:
        ``[count, 4]`` random 32-bit words held in uint64.
    """
    word0, word1, word2, word3 = (np.ascontiguousarray(counters[:, column]) for column in range(_WORDS_PER_BLOCK))
    key0, key1 = key
    for _ in range(_NUM_ROUNDS):
        # Both factors are below 2^32, so the product is exact in 64 bits.
        product0 = word0 * _MULTIPLIERS[0]
        product1 = word2 * _MULTIPLIERS[1]
        word0 = (product1 >> _SHIFT) ^ word1 ^ np.uint64(key0)
        word2 = (product0 >> _SHIFT) ^ word3 ^ np.uint64(key1)
        word1 = product1 & _WORD
        word3 = product0 & _WORD
        key0 = (key0 + _KEY_STEPS[0]) & _MASK
        key1 = (key1 + _KEY_STEPS[1]) & _MASK
    return np.stack([word0, word1, word2, word3], axis=1)


def uniform(seed: int, epoch: int, indices: npt.NDArray[np.int64], num_draws: int) -> Tensor:
    """Draw ``num_draws`` numbers for each sample, uniform in [0, 1), from (seed, epoch, index) alone.

    The numbers are float64 with 32 random bits: ``floor(draw * n)`` is then exact and below ``n`` for any ``n`` up to
    2^20, which float32 does not promise (its product can round up to ``n``).

    Args:
        seed: names the stream; see :func:`derive_seed`.
        epoch: from 0.
        indices: ``[sample]``, not negative.
        num_draws: how many numbers each sample needs.

    Returns:
        ``[sample, num_draws]``, float64; a longer draw starts with the shorter one.
    """
    num_blocks = -(-num_draws // _WORDS_PER_BLOCK)
    words = _blocks(seed, epoch, indices, num_blocks).reshape(len(indices), num_blocks * _WORDS_PER_BLOCK)
    return torch.from_numpy(words[:, :num_draws] * 2.0**-32)


def sort_keys(seed: int, epoch: int, indices: npt.NDArray[np.int64]) -> Words:
    """Draw one 64-bit word for each sample; sorting by them shuffles the samples.

    Unlike ``numpy.random.Generator.permutation``, whose stream may change between releases (NEP 19), the order is the
    same for good, and a subset of the samples keeps the relative order it has in the whole.
    """
    words = _blocks(seed, epoch, indices, 1)
    keys: Words = (words[:, 0] << _SHIFT) | words[:, 1]
    return keys


def _blocks(seed: int, epoch: int, indices: npt.NDArray[np.int64], num_blocks: int) -> Words:
    """Return ``[sample * num_blocks, 4]`` words; the counter is (index low, index high, epoch, block)."""
    positions = np.repeat(np.asarray(indices, dtype=np.int64).astype(np.uint64), num_blocks)
    counters = np.empty((len(positions), _WORDS_PER_BLOCK), dtype=np.uint64)
    counters[:, 0] = positions & _WORD
    counters[:, 1] = positions >> _SHIFT
    counters[:, 2] = epoch & _MASK
    counters[:, 3] = np.tile(np.arange(num_blocks, dtype=np.uint64), len(indices))
    return philox4x32(counters, (seed & _MASK, (seed >> 32) & _MASK))
