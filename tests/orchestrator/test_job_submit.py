"""A head as ``ray start`` makes one, and the two ways to send a sweep to it: ``ray job submit`` and ``ray submit``."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import submit

pytestmark = [pytest.mark.slow, pytest.mark.ray]

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")
START_SECONDS = 300
SWEEP_SECONDS = 600

SWEEP = [
    "sweep",
    "search_spaces/quickstart.yaml",
    "train.epochs=1",
    "teacher.train.epochs=1",
    "search.seed.grid=[0]",
    "search.paths.sets=[[soft_target]]",
    "search.aggregator.grid=[{use: Equal}, {use: Adaptive}]",
]
"""Two arms and the student alone, on one seed, an epoch each."""

LOOK = """
import ray

def look():
    import sys
    import orchestrator.execute, orchestrator.sweep
    ours = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("distill", "orchestrator")]
    return [module.__file__ for module in ours]

ray.init(log_to_driver=False)
print([*look(), *ray.get(ray.remote(look).remote())])
"""
"""A program that prints where the driver and a worker find what a sweep imports."""


@dataclass(frozen=True)
class Head:
    """A head that runs, and what a shell on it has in its environment."""

    address: str
    dashboard: str
    environment: dict[str, str]

    def run(self, *command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(part) for part in command],
            cwd=cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SWEEP_SECONDS,
        )

    def submit_job(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Do as the README says."""
        return self.submit_job_of("-m", "orchestrator", *arguments)

    def submit_job_of(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        submitted = [RAY, "job", "submit", "--address", self.dashboard, "--working-dir", "."]
        return self.run(*submitted, "--", "python", *arguments)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head with a token, on ports and in a folder of its own, so that it doesn't meet other clusters."""
    folder = Path(tempfile.mkdtemp(prefix="head-", dir="/tmp"))  # short: sockets lie in it
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))} | {
        "HOME": str(folder),
        "PATH": os.pathsep.join([str(RAY.parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--include-dashboard=true"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    running = Head(f"127.0.0.1:{ports['port']}", f"http://127.0.0.1:{ports['dashboard-port']}", environment)
    with (folder / "start.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_it_answers(running, process, folder / "start.log")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)  # with --block, it ends what it has started, and nothing else
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_until_it_answers(head: Head, process: subprocess.Popen[bytes], log: Path) -> None:
    token = head.environment["RAY_AUTH_TOKEN"]
    request = urllib.request.Request(f"{head.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return
    raise AssertionError(f"no answer from {head.dashboard}: {log.read_text()}")


def ended(storage: Path, name: str) -> dict[str, dict[str, Any]]:
    lines = (storage / name / "runs.jsonl").read_text().splitlines()
    return {record["arm"]: record["result"] for record in map(json.loads, lines)}


def assert_swept(run: subprocess.CompletedProcess[str], storage: Path, name: str) -> None:
    assert run.returncode == 0, run.stdout
    results = ended(storage, name)
    assert set(results) == {"alone", "equal/soft_target", "adaptive/soft_target"}, run.stdout
    assert {result["status"] for result in results.values()} == {"finished"}, run.stdout
    assert "3 runs ended" in run.stdout
    assert f"Best student: {storage / name / 'best' / 'student.pt'}" in run.stdout
    assert (storage / name / "compare" / "report.html").is_file()


def test_a_job_leaves_its_results_outside_of_the_folder_that_it_uploaded(head, tmp_path):
    run = head.submit_job(*SWEEP, "name=job", f"run.storage={tmp_path}")
    assert_swept(run, tmp_path, "job")
    assert not (ROOT / "outputs" / "job").exists()


def test_a_job_that_would_lose_its_results_is_refused_before_anything_is_trained(head):
    run = head.submit_job(*SWEEP, "name=lost")
    assert run.returncode != 0
    assert "run.storage: " in run.stdout
    assert "lies in the working directory that this job uploaded" in run.stdout
    assert "give an absolute path outside of it, or a URI" in run.stdout
    assert "training the teacher" not in run.stdout
    assert "Traceback" not in run.stdout.partition("run.storage: ")[0]


def test_a_job_runs_the_uploaded_code_in_all_processes_whatever_is_installed(head):
    run = head.submit_job_of("-c", LOOK)
    assert run.returncode == 0, run.stdout
    [line] = [line for line in run.stdout.splitlines() if line.startswith("['")]
    files = ast.literal_eval(line)
    assert len(files) > 200
    assert [file for file in files if "/runtime_resources/working_dir_files/" not in file] == []


def test_the_script_of_ray_submit_sweeps_on_the_head_from_any_folder(head, tmp_path):
    """``ray submit`` copies the one file to the head's home folder, and runs it there."""
    home, storage = tmp_path / "home", tmp_path / "outputs"
    home.mkdir()
    script = shutil.copy(submit.__file__, home / "submit.py")
    shell = Head(
        head.address,
        head.dashboard,
        head.environment | {"DISTILLERY_HOME": str(ROOT), "RAY_ADDRESS": head.address},
    )
    run = shell.run(sys.executable, script, "--", *SWEEP, "name=submitted", f"run.storage={storage}", cwd=home)
    assert_swept(run, storage, "submitted")
    assert sorted(path.name for path in home.iterdir()) == ["submit.py"]
