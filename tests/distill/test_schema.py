"""Signatures as schemas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from distill.annotations import fit
from distill.schema import Problem, fit_options, join, nearest, schema


class Base:
    def __init__(self, *, size: int, mean: float = 0.0) -> None:
        self.size = size


class Passing(Base):
    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(size=3, **options)


class Swallowing(nn.Module):
    def __init__(self, width: int = 8, **ignored: Any) -> None:
        super().__init__()


def factory(**options: Any) -> Passing:
    return Passing("x", **options)


def anything(depth: int, **options: Any) -> nn.Module:
    return nn.Identity()


def test_keyword_arguments_are_followed_to_the_next_constructor():
    found = schema(Passing)
    assert list(found.options) == ["root", "mean"]  # `size` has no default: Passing itself gives it
    assert not found.is_open


def test_keyword_arguments_of_a_function_are_followed_to_the_class_it_returns():
    assert list(schema(factory).options) == ["mean"]
    assert not schema(factory).is_open


def test_a_class_that_swallows_what_it_is_given_is_not_open():
    assert list(schema(Swallowing).options) == ["width"]
    assert not schema(Swallowing).is_open


def test_a_function_whose_keyword_arguments_lead_nowhere_is_open():
    assert list(schema(anything).options) == ["depth"]
    assert schema(anything).is_open
    assert schema(anything).accepts("whatever")


def test_every_torchvision_classification_model_takes_num_classes_and_nothing_is_required():
    names = torchvision.models.list_models(module=torchvision.models)
    assert len(names) >= 80
    for name in names:
        found = schema(getattr(torchvision.models, name))
        assert "num_classes" in found.options, name
        assert not found.is_open, name
        assert not [option for option in found.options.values() if option.default is not option.default], name


def test_annotations_that_are_imported_for_type_checkers_only_are_still_known():
    milestones = schema(torch.optim.lr_scheduler.MultiStepLR).options["milestones"]
    assert fit([3, 5], milestones.annotation) == ([3, 5], [])
    assert fit(3, milestones.annotation)[1]


def test_all_problems_come_at_once_with_names_and_signature():
    values = {"rot": "x", "mean": "y", "size": 3}
    _, problems = fit_options(values, Passing, fit, owner="Passing")
    assert [(problem.key, problem.nearest) for problem in problems] == [
        ("rot", "root"),
        ("mean", ""),
        ("size", ""),
    ]
    assert str(problems[0]) == "rot: Passing has no option 'rot'; it takes root, mean = 0.0. Did you mean 'root'?"


def test_a_required_option_that_is_neither_given_nor_misspelt_is_missing():
    _, [problem] = fit_options({"mean": 1}, Passing, fit, owner="Passing")
    assert (problem.key, problem.message) == ("", "Passing needs the option 'root'; it takes root, mean = 0.0")


def test_what_is_given_is_not_missing_and_what_is_reserved_is_refused():
    fitted, problems = fit_options(
        {"mean": 1}, Base, fit, owner="Base", given=("size",), reserved={"mean": "the data say so"}
    )
    assert fitted == {}
    assert [str(problem) for problem in problems] == ["mean: Base cannot be given 'mean' here: the data say so"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SoftTargt", "SoftTarget"), ("softtarget", "SoftTarget"), ("Flip", "RandomHorizontalFlip"), ("zzz", "")],
)
def test_nearest_name(name, expected):
    assert nearest(name, ["SoftTarget", "RandomHorizontalFlip", "Logits"]) == expected


def test_keys_join():
    assert join("", "a") == "a"
    assert join("a", "") == "a"
    assert Problem("b", "wrong").under("a").key == "a.b"
