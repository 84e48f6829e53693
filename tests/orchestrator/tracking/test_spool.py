from __future__ import annotations

import json
import os

import pytest

from orchestrator.tracking.spool import FILE_NAME, Spool, count_operations, read_operations


def _steps(path, offset=0):
    return [operation["step"] for operation, _ in read_operations(path, offset)]


def test_operations_come_back_in_order_from_any_offset(tmp_path):
    spool = Spool(tmp_path)
    for step in range(3):
        spool.append({"op": "metrics", "step": step})
    ends = [end for _, end in read_operations(spool.path)]
    assert _steps(spool.path) == [0, 1, 2]
    assert _steps(spool.path, ends[0]) == [1, 2]
    assert count_operations(spool.path, ends[1]) == 1
    assert ends[-1] == spool.path.stat().st_size


def test_every_operation_is_in_the_file_when_append_returns(tmp_path):
    spool = Spool(tmp_path)
    spool.append({"op": "tags", "step": 7})
    assert json.loads(spool.path.read_text()) == {"op": "tags", "step": 7}


@pytest.mark.parametrize("num_bytes", [1, 10, 20])
def test_torn_last_line_waits_and_then_costs_only_itself(tmp_path, num_bytes):
    spool = Spool(tmp_path)
    spool.append({"op": "metrics", "step": 0})
    spool.append({"op": "metrics", "step": 1})
    spool.close()
    whole = spool.path.read_bytes()
    spool.path.write_bytes(whole[:-num_bytes])
    assert _steps(spool.path) == [0]
    resumed = Spool(tmp_path)
    resumed.append({"op": "metrics", "step": 2})
    # Without its line end only, the operation is whole.
    assert _steps(resumed.path) == ([0, 1, 2] if num_bytes == 1 else [0, 2])


def test_damage_in_the_middle_is_passed_over_and_said(tmp_path, caplog):
    spool = Spool(tmp_path)
    for step in range(3):
        spool.append({"op": "metrics", "step": step})
    content = bytearray(spool.path.read_bytes())
    content[content.index(b'"step":1') + 6] = 0
    spool.path.write_bytes(content)
    assert _steps(spool.path) == [0, 2]
    assert "damaged line" in caplog.text


def test_full_disk_costs_the_operation_and_one_warning(tmp_path, caplog):
    (tmp_path / FILE_NAME).symlink_to("/dev/full")
    spool = Spool(tmp_path)
    for step in range(3):
        spool.append({"op": "metrics", "step": step})
    assert spool.num_lost == 3
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


def test_half_written_line_does_not_take_the_next_one_with_it(tmp_path, monkeypatch):
    spool = Spool(tmp_path)
    real_write = os.write

    def write_half_then_fail(file, line):
        if len(line) > 10:
            return real_write(file, line[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", write_half_then_fail)
    spool.append({"op": "metrics", "step": 0})
    monkeypatch.undo()
    spool.append({"op": "metrics", "step": 1})
    assert _steps(spool.path) == [1]


def test_not_finite_values_never_reach_the_file(tmp_path):
    spool = Spool(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        spool.append({"op": "metrics", "value": float("nan")})


def test_append_after_close_writes_into_nobody_elses_file(tmp_path):
    spool = Spool(tmp_path)
    spool.close()
    with (tmp_path / "innocent").open("wb"):
        spool.append({"op": "metrics", "step": 0})
    assert (tmp_path / "innocent").read_bytes() == b""
    assert spool.num_lost == 1
