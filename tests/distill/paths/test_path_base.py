from __future__ import annotations

from typing import Any

import pytest
import torch
from path_cases import batch_of, connect, make_probe
from torch import Tensor

from distill.batch import Batch
from distill.paths import FeatureMap, Logits
from distill.paths.base import FeaturePath, LogitPath, key, widen
from distill.taps import OUTPUT


class Spy(FeaturePath):
    """Remembers in which precision it was called."""

    def layer_target(self, layer: str, teacher: Tensor) -> Tensor:
        self.seen_target = (teacher.dtype, torch.is_autocast_enabled("cpu"))
        return teacher

    def layer_loss(self, layer: str, student: Tensor, target: Tensor) -> Tensor:
        self.seen_loss = (student.dtype, target.dtype, torch.is_autocast_enabled("cpu"))
        return student.sum()


class LogitSpy(LogitPath):
    def loss(self, student: Tensor, teacher: Tensor, batch: Batch) -> Tensor:
        self.seen_loss = (student.dtype, teacher.dtype, torch.is_autocast_enabled("cpu"))
        return student.sum()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_path_computes_in_float32_without_autocast(dtype: torch.dtype) -> None:
    maps = torch.ones(2, 3, 4, 4, dtype=dtype)
    spy, logit_spy = Spy(), LogitSpy()
    connect(spy, [(3, 4, 4)], [(3, 4, 4)])
    connect(logit_spy, [(3, 4, 4)], [(3, 4, 4)])
    with torch.autocast("cpu", torch.bfloat16):
        target = spy.target({"t0": maps})
        spy({"s0": maps}, {"s0": target["s0"].to(dtype)}, batch_of(2))
        logit_spy({OUTPUT: maps[:, 0, 0]}, logit_spy.target({OUTPUT: maps[:, 0, 0]}), batch_of(2))
        assert torch.is_autocast_enabled("cpu"), "the caller's autocast is back on"
    assert spy.seen_target == (torch.float32, False)
    assert spy.seen_loss == (torch.float32, torch.float32, False)
    assert logit_spy.seen_loss == (torch.float32, torch.float32, False)


def test_widen_keeps_float64() -> None:
    assert widen(torch.ones(1, dtype=torch.float64)).dtype == torch.float64


PAIR = {"student": "a", "teacher": "b"}


@pytest.mark.parametrize(
    "taps",
    [
        "all",
        "",
        [],
        PAIR,
        ["layer1"],
        [{"student": "a"}],
        [PAIR, {**PAIR, "teacher": 3}],
        [{**PAIR, "weight": 1}],
        None,
    ],
)
def test_taps_are_auto_or_pairs(taps: Any) -> None:
    with pytest.raises(ValueError, match=r"taps must be 'auto' or a list of \{student: NAME, teacher: NAME\}, found"):
        FeatureMap(taps=taps)


def test_named_taps_are_the_ones_that_are_read() -> None:
    path = connect(
        FeatureMap(taps=[{"student": "s1", "teacher": "t0"}]), [(3, 4, 4), (5, 2, 2)], [(7, 4, 4), (9, 2, 2)]
    )
    assert [(pair.student, pair.teacher) for pair in path.pairs] == [("s1", "t0")]
    assert path.adapters[key(path.pairs[0].layer)].convolution.weight.shape == (7, 5, 1, 1)


def test_auto_pairs_every_stage() -> None:
    path = connect(FeatureMap(), [(3, 4, 4), (5, 2, 2)], [(7, 4, 4), (9, 2, 2)])
    assert [(pair.student, pair.teacher) for pair in path.pairs] == [("s0", "t0"), ("s1", "t1")]


def test_logits_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the student gives \[10\] and the teacher \[100\]"):
        Logits().connect(make_probe("s", [(3, 4, 4)], num_classes=10), make_probe("t", [(3, 4, 4)], num_classes=100))


def test_every_layer_has_its_own_legal_submodule_name() -> None:
    layers = ["layer1.0", "layer1_0", "values", "type", "training", "", "a.b-c", "a-b.c", "a_b.c"]
    modules = torch.nn.ModuleDict({key(layer): torch.nn.Identity() for layer in layers})
    assert len(modules) == len(layers)
