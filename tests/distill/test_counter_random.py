import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from distill.counter_random import derive_seed, philox4x32, sort_keys, uniform

KNOWN_ANSWERS = [  # Random123, examples/kat_vectors: "philox4x32 10", counter, key, result
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected):
    counters = np.array([words(counter)] * 3, dtype=np.uint64)
    result = philox4x32(counters, tuple(words(key)))
    assert result.tolist() == [words(expected)] * 3


def test_uniform_places_seed_epoch_index_and_block_where_the_known_answer_has_them():
    # Counter and key of the third vector: index is (low, high), then epoch, then block.
    index = np.array([0x85A308D3_243F6A88 & (2**63 - 1)], dtype=np.int64)
    seed = 0x299F31D0_A4093822
    counter = np.array([[0x243F6A88, 0x05A308D3, 0x13198A2E, 0]], dtype=np.uint64)
    expected = philox4x32(counter, (0xA4093822, 0x299F31D0))[0] / 2.0**32
    assert uniform(seed, 0x13198A2E, index, 4).tolist() == [expected.tolist()]


def test_uniform_of_the_zero_counter_is_the_zero_vector_answer():
    draws = uniform(0, 0, np.array([0]), 4)
    assert draws.dtype == torch.float64
    assert draws.tolist() == [[word / 2**32 for word in (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)]]


def test_uniform_depends_on_seed_epoch_and_index_alone():
    indices = np.array([7, 3, 99, 3])
    draws = uniform(5, 2, indices, 6)
    assert draws[1].equal(draws[3])
    assert uniform(5, 2, np.array([99]), 6)[0].equal(draws[2])
    assert uniform(5, 2, indices, 3).equal(draws[:, :3])
    assert not uniform(6, 2, indices, 6).equal(draws)
    assert not uniform(5, 3, indices, 6).equal(draws)


def test_uniform_is_uniform_and_its_columns_are_uncorrelated():
    draws = uniform(derive_seed("test"), 0, np.arange(20_000), 5).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in draws.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-3
    off_diagonal = np.corrcoef(draws.T) - np.eye(5)
    assert np.abs(off_diagonal).max() < 0.03  # 4 standard errors of 20,000 samples


def test_uniform_of_nothing_is_empty():
    assert uniform(0, 0, np.array([1, 2]), 0).shape == (2, 0)
    assert uniform(0, 0, np.array([], dtype=np.int64), 4).shape == (0, 4)


def test_sort_key_of_the_zero_counter_is_the_head_of_the_zero_vector_answer():
    assert sort_keys(0, 0, np.array([0])).tolist() == [0x6627E8D5_E169C58D]


def test_sort_keys_keep_a_subset_in_the_order_of_the_whole():
    whole = np.arange(1000)
    some = np.arange(0, 1000, 7)
    order = np.argsort(sort_keys(1, 4, whole))
    assert some[np.argsort(sort_keys(1, 4, some))].tolist() == [index for index in order if index % 7 == 0]


def test_derive_seed_is_the_head_of_the_sha256_of_the_parts():
    # From the shell: printf "(0, 'student')" | sha256sum, and the same of "(3,)".
    assert derive_seed(0, "student") == 0xCDF9238D25F5615E >> 1
    assert derive_seed(3) == 0x4079E4AF87D7D813 >> 1


def test_derive_seed_is_the_same_in_another_process_with_another_hash_seed():
    command = "from distill.counter_random import derive_seed; print(derive_seed(3, 'path', 'attention'))"
    environment = {"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(sys.path)}
    printed = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, env=environment
    ).stdout
    assert int(printed) == derive_seed(3, "path", "attention")
    assert 0 <= int(printed) < 2**63


def test_derive_seed_separates_its_parts():
    seeds = {derive_seed(1, 2), derive_seed(12), derive_seed("1", 2), derive_seed(1, 2, ""), derive_seed(2, 1)}
    assert len(seeds) == 5


@pytest.mark.parametrize("part", [1.5, True, None, np.int64(3)])
def test_derive_seed_refuses_what_has_no_stable_text(part):
    with pytest.raises(ValueError, match="plain int or str"):
        derive_seed(0, part)
