from __future__ import annotations

import sys

import pytest
from ray.exceptions import RayActorError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

from orchestrator.failure_reason import MOST_CHARACTERS, failure_reason


def test_the_first_line_with_its_kind():
    assert failure_reason(RuntimeError("the disk is full\nand more")) == "RuntimeError: the disk is full"
    assert failure_reason(KeyError()) == "KeyError"


def test_ray_need_not_be_installed(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "ray"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)  # importing it fails
    assert failure_reason(RuntimeError("the disk is full")) == "RuntimeError: the disk is full"


def test_ray_s_wrappings_are_taken_off():
    error = RayTaskError("train", "Traceback (most recent call last): ...", ValueError("lr: must be above 0"))
    assert failure_reason(error) == "ValueError: lr: must be above 0"


def test_a_dead_process_is_called_so():
    assert "died" in failure_reason(RayActorError())


def test_the_worker_that_failed_by_itself_is_named():
    failures = {
        0: RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"),
        1: RuntimeError("CUDA out of memory"),
    }
    assert failure_reason(WorkerGroupError("all", failures)) == "RuntimeError: CUDA out of memory"


def test_an_error_of_train_s_controller_is_what_it_wraps():
    assert failure_reason(ControllerError(RuntimeError("no port"))) == "RuntimeError: no port"


def test_of_a_traceback_the_last_line():
    text = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\nOSError: no space left'
    assert failure_reason(RuntimeError(text)) == "RuntimeError: OSError: no space left"


@pytest.mark.parametrize("length", [10, 5000])
def test_a_reason_is_one_line_of_limited_length(length):
    reason = failure_reason(RuntimeError("x\t y " * length))
    assert "\n" not in reason
    assert len(reason) <= MOST_CHARACTERS
