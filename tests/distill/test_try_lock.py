import errno
import fcntl
import logging

import pytest

from distill.file_lock import try_lock


@pytest.mark.parametrize(
    ("first", "second", "both"), [(False, False, False), (False, True, False), (True, False, False), (True, True, True)]
)
def test_only_shared_locks_go_together_and_closing_releases(tmp_path, first, second, both):
    with (tmp_path / "lock").open("wb") as one, (tmp_path / "lock").open("wb") as other:
        assert try_lock(one.fileno(), shared=first)
        assert try_lock(other.fileno(), shared=second) is both
        one.close()
        assert try_lock(other.fileno(), shared=second)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (tmp_path / "lock").open("wb") as file, caplog.at_level(logging.WARNING):
        assert try_lock(file.fileno())
    assert "No locks available" in caplog.text
