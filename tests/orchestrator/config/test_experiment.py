"""Resolved configurations and what identifies them."""

from __future__ import annotations

import hashlib
import json

import pytest

from orchestrator.config import canonical_json, config_hash, differing_keys
from orchestrator.config.document import Document
from orchestrator.config.structure import structure

FILE = {
    "data": {"use": "Digits"},
    "student": {"model": {"use": "ResNet8", "width": 16}},
    "train": {"epochs": 3, "optimizer": {"use": "torch.optim.SGD", "lr": 0.1}},
    "search": {"seed": {"grid": [0, 1]}},
}


def config(**changes):
    return structure(Document("experiment.yaml", {**FILE, **changes})).config


def test_the_resolved_file_is_plain_data_without_what_cannot_be_json():
    resolved = config()
    assert json.loads(json.dumps(resolved)) == resolved
    assert resolved["search"] == {"seed": {"grid": [0, 1]}}
    assert "search" not in config(search=None)


def test_the_hash_is_the_digest_of_the_canonical_text():
    data = {"b": [1, None], "a": {"y": 0.1, "x": "é"}}
    assert canonical_json(data) == '{"a":{"x":"\\u00e9","y":0.1},"b":[1,null]}'
    assert config_hash(data) == hashlib.sha256(canonical_json(data).encode()).hexdigest()[:16]


def test_the_order_of_keys_does_not_count():
    reordered = dict(reversed(list(FILE.items())))
    assert structure(Document("experiment.yaml", reordered)).config_hash == config_hash(config())


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"run": {"storage": "elsewhere"}},
        {"run": {"tracking_uri": "http://localhost"}},
        {"run": {"max_concurrent": 2}},
        {"run": {"max_failures": 3}},
        {"run": {"num_arms": 5}},
    ],
)
def test_what_leaves_every_result_as_it_is_does_not_count(change):
    assert config_hash(config(**change)) == config_hash(config())
    assert differing_keys(config(**change), config()) == {}


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"train": {"epochs": 4, "optimizer": {"use": "torch.optim.SGD", "lr": 0.1}}}, {"train.epochs": (4, 3)}),
        ({"search": {"seed": {"grid": [0, 1, 2]}}}, {"search.seed.grid.2": (2, None)}),
        ({"run": {"workers": 2}}, {"run.workers": (2, 1)}),
        ({"data": {"use": "Digits", "size": 16}}, {"data.size": (16, None)}),
        ({"data": {"use": "Digits", "size": None}}, {"data.size": (None, None)}),
        ({"seed": 1}, {"seed": (1, 0)}),
    ],
)
def test_differing_keys_are_empty_exactly_where_hashes_agree(change, keys):
    assert differing_keys(config(**change), config()) == keys
    assert config_hash(config(**change)) != config_hash(config())


def test_a_number_with_and_without_a_point_is_the_same_where_a_number_is_wanted():
    first = config(run={"gpus_per_worker": 1})
    assert config_hash(first) == config_hash(config(run={"gpus_per_worker": 1.0}))


TEACHER = {"model": {"use": "ResNet8"}}


def test_a_section_without_a_later_key_keeps_its_hash():
    resolved = config(teacher=TEACHER)
    before = json.loads(json.dumps(resolved))
    for section in ("student", "teacher"):
        del before[section]["weights_backbone"]
    assert config_hash(before) == config_hash(resolved)
    assert differing_keys(before, resolved) == {}


@pytest.mark.parametrize("section", ["student", "teacher"])
def test_a_later_key_counts_where_it_is_given(section):
    sections = {"student": FILE["student"], "teacher": TEACHER}
    plain = config(**sections)
    given = config(**sections | {section: sections[section] | {"weights_backbone": "DEFAULT"}})
    assert config_hash(given) != config_hash(plain)
    assert differing_keys(given, plain) == {f"{section}.weights_backbone": ("DEFAULT", None)}
