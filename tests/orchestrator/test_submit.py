from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import submit

COMMAND_LINE = """
import json, os, sys
def main(arguments):
    print(json.dumps([arguments, os.getcwd(), os.environ["RAY_ADDRESS"]]))
    return 7
"""


@pytest.fixture
def head(tmp_path):
    """A home folder as `ray up` and `ray submit` leave it on the head: the project, and beside it the script alone."""
    package = tmp_path / "distillery" / "orchestrator"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(COMMAND_LINE)
    shutil.copy(submit.__file__, tmp_path / "submit.py")
    return tmp_path


def run(head: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    return subprocess.run(
        [sys.executable, str(head / "submit.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"HOME": str(head)},
    )


@pytest.mark.parametrize("separator", [[], ["--"]])
def test_the_script_alone_runs_the_command_line_in_the_project_s_folder(head, separator):
    ended = run(head, *separator, "sweep", "search_spaces/x.yaml", "--", "a=1")
    assert json.loads(ended.stdout) == [
        ["sweep", "search_spaces/x.yaml", "--", "a=1"],
        str(head / "distillery"),
        "auto",
    ]
    assert ended.returncode == 7


def test_a_head_without_the_project_is_told_what_is_missing(tmp_path):
    shutil.copy(submit.__file__, tmp_path / "submit.py")
    ended = run(tmp_path, "sweep")
    assert ended.returncode == 2
    assert "DISTILLERY_HOME" in ended.stderr
    assert "Traceback" not in ended.stderr
