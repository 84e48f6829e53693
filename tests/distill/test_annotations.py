"""One value against one annotation: what passes, what it becomes, what is said."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import pytest

from distill.annotations import fit, rejection


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Box:
    width: int
    share: float | int = 0.5
    label: str | None = None

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"box.width must be at least 1, found {self.width}")


def positive(value: Any) -> str:
    return "" if value > 0 else "must be above 0"


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (3, int, 3),
        (3, float, 3.0),
        (0.5, float | int, 0.5),
        (5000, float | int, 5000),
        (True, bool, True),
        ("a", str, "a"),
        (None, int | None, None),
        (None, Optional[int], None),  # noqa: UP045  # as torch writes it
        (2, Union[str, int], 2),  # noqa: UP007
        ("auto", Literal["auto"] | Sequence[str], "auto"),
        (["a"], Literal["auto"] | Sequence[str], ["a"]),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        ([1, 2, 3], tuple[int, ...], (1, 2, 3)),
        ([1, 2], Iterable[int], [1, 2]),
        ({"a": 1}, Mapping[str, float], {"a": 1.0}),
        ("x/y", Path, Path("x/y")),
        ("red", Colour, Colour.RED),
        ("BLUE", Colour, Colour.BLUE),
        (3, Annotated[int, positive], 3),
        ({"width": 2, "share": 7}, Box, Box(2, 7)),
        ({"width": 2}, Box | None, Box(2)),
        ({"anything": [1, "x"]}, Any, {"anything": [1, "x"]}),
        (0.1, float | Callable[[int], float], 0.1),
    ],
)
def test_what_passes_has_the_annotated_form(value, annotation, expected):
    fitted, problems = fit(value, annotation)
    assert problems == []
    assert fitted == expected
    assert type(fitted) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation", "key", "words"),
    [
        (True, int, "", ["a whole number", "true"]),
        (False, float, "", ["a number", "false"]),
        (1, bool, "", ["true or false", "found 1"]),
        (64.0, int, "", ["a whole number", "64.0"]),
        ("yes", bool, "", ["true or false", "write true"]),
        ("off", bool, "", ["write false"]),
        ("1e-3x", float, "", ["a number", "the text '1e-3x'"]),
        (None, int, "", ["nothing (null)"]),
        (3, str, "", ["text", "found 3"]),
        ("abc", Sequence[str], "", ["a list", "the text 'abc'"]),
        ([1, "x", None], list[int], "1", ["the text 'x'"]),
        ([1, "x", None], list[int], "2", ["nothing"]),
        ([0.9], tuple[float, float], "", ["2 values", "found 1"]),
        ({"a": "x"}, Mapping[str, int], "a", ["a whole number"]),
        ([{"student": 3}], Literal["auto"] | Sequence[Mapping[str, str]], "0.student", ["text", "3"]),
        (4, Literal["auto"] | Sequence[str], "", ["'auto' or a list"]),
        (0, Annotated[float, positive] | None, "", ["must be above 0", "found 0"]),
        ("hot", Annotated[float, positive] | None, "", ["a number or null", "hot"]),
        ({"width": 0}, Box | None, "width", ["must be at least 1"]),
        ({"width": "x"}, Box | None, "width", ["a whole number"]),
        ({}, Box | None, "", ["needs the key 'width'"]),
        ([], Box, "", ["must be a mapping"]),
        ("a", Callable[[int], int], "", ["a file cannot give"]),
        ("a", Callable[[int], int] | None, "", ["must be null"]),
    ],
)
def test_what_does_not_pass_is_said_where_it_stands(value, annotation, key, words):
    _, problems = fit(value, annotation)
    said = [problem for problem in problems if problem.key == key]
    assert len(said) == 1, problems
    assert all(word in said[0].message for word in words), said[0].message


def test_choices_suggest_the_nearest():
    [problem] = fit("bacth", Literal["batch", "epoch"])[1]
    assert problem.nearest == "batch"
    assert "Did you mean 'batch'?" in str(problem)
    [problem] = fit("bacth", Literal["batch", "epoch"] | None)[1]
    assert problem.nearest == "batch"


def test_true_is_not_the_choice_one():
    assert fit(True, Literal[1, 3])[1]
    assert not fit(1, Literal[1, 3])[1]


def test_all_problems_of_a_mapping_are_found_at_once():
    _, problems = fit({"width": "a", "share": "b", "lable": "c"}, Box)
    assert [problem.key for problem in problems] == ["width", "share", "lable"]
    assert problems[2].nearest == "label"


@pytest.mark.parametrize(
    ("message", "key", "rest"),
    [
        ("temperature must be above 0, found -1", "temperature", "must be above 0, found -1"),
        ("augment[1] (Crop) cannot", "augment.1", "(Crop) cannot"),
        ("split.train must leave", "split.train", "must leave"),
        ("other.split must leave", "split", "must leave"),
        ("Invalid learning rate: -1.0", "lr", "Invalid learning rate: -1.0"),
        ("something else", "", "something else"),
        ("temperatures are odd", "", "temperatures are odd"),
    ],
)
def test_a_constructors_complaint_is_about_the_option_it_names_or_shows(message, key, rest):
    options = {"temperature": 4.0, "augment": [], "split": None, "lr": -1.0, "nesterov": True}
    problem = rejection(ValueError(message), options)
    assert (problem.key, problem.message) == (key, rest)
