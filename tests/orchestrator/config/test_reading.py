"""YAML without its traps."""

from __future__ import annotations

import pytest
import yaml

from orchestrator.config.reading import MAX_VALUES, read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 0.001),
        ("1E5", 100000.0),
        ("1e5", 100000.0),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("0", 0),
        ("-7", -7),
        ("50_000", 50000),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("'010'", "010"),
        ('"1e-3"', "1e-3"),
        ("!!str 010", "010"),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars(text, expected):
    reading = read(f"key: {text}")
    assert reading.findings == []
    assert reading.data == {"key": expected}
    assert type(reading.data["key"]) is type(expected)


def test_the_traps_are_real_in_pyyaml():
    assert yaml.safe_load("key: 1e-3") == {"key": "1e-3"}
    assert yaml.safe_load("key: 010") == {"key": 8}
    assert yaml.safe_load("key: 12:30") == {"key": 750}
    assert yaml.safe_load("on: yes") == {True: True}
    assert yaml.safe_load("a: 1\na: 2") == {"a": 2}


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("a: 1\nb: 010", 2, "b", "write 10"),
        ("a: 0o10", 1, "a", "decimal"),
        ("a: 0x1F", 1, "a", "decimal"),
        ("a: -007", 1, "a", "write 7"),
        ("a: .inf", 1, "a", "finite"),
        ("a: .nan", 1, "a", "finite"),
        ("a: 1e999", 1, "a", "finite"),
        ("a: 1\nb: 2\na: 3", 3, "a", "lines 1 and 3"),
        ("x:\n  a: 1\n  a: 2", 3, "x.a", "lines 2 and 3"),
        ("x: [{a: 1, a: 2}]", 1, "x.0.a", "twice"),
        ("x:\n\ta: 1", 2, "", "indents by spaces"),
        ("a: b: c", 1, "", "mapping values are not allowed"),
        ("a: [1, 2", 1, "", "expected ',' or ']'"),
        ("a: !!python/object/apply:os.system [x]", 1, "a", "not read here"),
        ("a: !!binary aGk=", 1, "a", "not read here"),
        ("1: a", 1, "", "no text"),
        ("true: a", 1, "", "no text"),
        ("a: &x [*x]", 1, "a.0", "contains itself"),
        ("a: 1\n---\nb: 1", 2, "", "another document"),
        ("a: *nothing", 1, "", "undefined alias"),
        ("<<: 3", 1, "", "expected a mapping"),
        ("a: \x07", 1, "", "not YAML"),
        ("a: !!int x", 1, "a", "no whole number"),
        ("[" * 2000, 1, "", "nested too deeply"),
    ],
)
def test_what_is_refused(text, line, key, words):
    findings = read(text).findings
    assert findings
    assert (findings[0].line, findings[0].key) == (line, key)
    assert words in findings[0].message


def test_all_findings_at_once():
    assert [finding.key for finding in read("a: 010\nb: .nan\nc: {d: 0o7}").findings] == ["a", "b", "c.d"]


def test_lines_of_keys_and_items():
    lines = read("a: 1\nb:\n  c:\n    - 1\n    - {d: 2}\n").lines
    assert lines == {"a": 1, "b": 2, "b.c": 3, "b.c.0": 4, "b.c.1": 5, "b.c.1.d": 5}


def test_anchors_and_merges():
    reading = read("base: &base {lr: 0.1, momentum: 0.9}\nown: {<<: *base, lr: 0.2}\nalso: *base")
    assert reading.findings == []
    assert reading.data["own"] == {"lr": 0.2, "momentum": 0.9}
    assert reading.data["also"] == {"lr": 0.1, "momentum": 0.9}


def test_aliases_of_aliases_end():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    findings = read("\n".join(rows)).findings
    assert [finding.message for finding in findings] == [f"more than {MAX_VALUES} values"]
