"""Short names of values."""

from __future__ import annotations

import pytest

from orchestrator.config.labels import flat, labels, snake_case

ADAPTIVE = {"use": "Adaptive"}


def gated(*others, **options):
    return {"use": "Adaptive", "modifiers": [{"use": "CosineGate", **options}, *others]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([{"use": "Equal"}, {"use": "LogSum"}], ["Equal", "LogSum"]),
        ([{"use": "Adaptive"}, {"use": "Adaptive", "granularity": "layer"}], ["Adaptive", "Adaptive-layer"]),
        (
            [{"use": "Adaptive", "alpha": 0.5}, {"use": "Adaptive", "alpha": 2}],
            ["Adaptive-alpha=0.5", "Adaptive-alpha=2"],
        ),
        (
            [
                {"use": "Equal", "modifiers": [{"use": "CosineGate"}]},
                {"use": "LogSum"},
            ],  # not the Equal to compare with
            ["Equal-CosineGate", "LogSum"],
        ),
        (
            [ADAPTIVE, gated(), gated({"use": "Bound", "growth": 6}), gated(every=5), gated(every=5, scope="last")],
            [
                "Adaptive",
                "Adaptive-CosineGate",
                "Adaptive-CosineGate-Bound",
                "Adaptive-CosineGate-every=5",
                "Adaptive-CosineGate-every=5-last",
            ],
        ),
        (
            [gated({"use": "Bound", "growth": 6}), gated({"use": "Bound", "growth": 2}), gated({"use": "Ramp"})],
            ["Adaptive-CosineGate-Bound-growth=6", "Adaptive-CosineGate-Bound-growth=2", "Adaptive-CosineGate-Ramp"],
        ),
        (
            [
                ADAPTIVE,
                ADAPTIVE | {"granularity": {"early": ["at"], "late": ["kd", "logits"]}},
                ADAPTIVE | {"granularity": {"early": ["at", "kd"], "late": ["logits"]}},
                ADAPTIVE | {"granularity": "layer", "modifiers": []},
            ],
            [
                "Adaptive",
                "Adaptive-early=at-late=kd+logits",
                "Adaptive-early=at+kd-late=logits",
                "Adaptive-layer-modifiers=none",
            ],
        ),
        (
            [{"use": "A", "kind": "MGDA"}, {"use": "A", "kind": "MGDA", "normalize_rows": True}],
            ["A", "A-normalize_rows"],
        ),
        ([{"use": "SGD", "nesterov": False}, {"use": "SGD", "nesterov": True}], ["SGD-no_nesterov", "SGD-nesterov"]),
        ([{"use": "Adam", "betas": [0.9, 0.99]}, {"use": "Adam"}], ["Adam-betas=0.9+0.99", "Adam"]),
        ([{"use": "torch.optim.SGD"}, {"use": "torch.optim.AdamW"}], ["SGD", "AdamW"]),
        ([{"model": {"use": "ResNet8"}}, {"model": {"use": "ResNet20"}}], ["ResNet8", "ResNet20"]),
        ([0.1, 1e-05, 3, True, None, "a"], ["0.1", "1e-05", "3", "true", "null", "a"]),
        ([[1, 2], [3]], ["1+2", "3"]),
    ],
)
def test_values_are_named_by_what_distinguishes_them(values, expected):
    assert labels(values) == expected


def test_labels_are_unique_whatever_happens():
    values = [{"use": "A", "x": "same"}, {"use": "A", "y": "same"}]
    assert len(set(labels(values))) == 2


def test_snake_case():
    assert [snake_case(name) for name in ("LogSum", "Adaptive", "AdaptivePaper", "Equal-layer")] == [
        "log_sum",
        "adaptive",
        "adaptive_paper",
        "equal-layer",
    ]


def test_flat():
    nested = {"a": {"b": 1, "c": [2, {"d": 3}]}, "e": {}, "f": []}
    assert flat(nested) == {"a.b": 1, "a.c.0": 2, "a.c.1.d": 3, "e": {}, "f": []}
