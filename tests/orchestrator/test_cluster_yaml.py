"""``cluster.yaml`` and ``.rayignore`` against Ray's own code; both calls are private, and used in tests only."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config():
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def check(config: dict) -> dict:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


def test_ray_accepts_the_cluster_file(config):
    prepared = check(config)
    assert prepared["available_node_types"]["gpu"]["max_workers"] == 4
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


@pytest.mark.parametrize(
    "break_it",
    [
        lambda config: config["available_node_types"]["gpu"]["resources"].update(CPU=0.5),
        lambda config: config["available_node_types"]["gpu"]["resources"].update(CPU="8"),
        lambda config: config.update(head_node_type="missing"),
        lambda config: config.update(max_workerz=3),
        lambda config: config["available_node_types"]["gpu"].update(min_workers=9, max_workers=9),
    ],
)
def test_ray_s_check_does_bite(config, break_it):
    broken = copy.deepcopy(config)
    break_it(broken)
    with pytest.raises((ValidationError, ValueError)):
        check(broken)


def test_workers_have_gpus_and_the_head_has_none(config):
    types = config["available_node_types"]
    assert types["gpu"]["resources"]["GPU"] > 0
    assert "GPU" not in types["head"]["resources"]
    assert config["head_node_type"] == "head"
    assert types["gpu"]["min_workers"] == 0
    assert types["gpu"]["max_workers"] <= config["max_workers"]


def test_the_images_have_the_ray_of_the_constraints(config):
    (pinned,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    for name in ("head_image", "worker_image"):
        assert f":{pinned}-py" in config["docker"][name]


def test_the_project_is_installed_where_it_is_copied_to_and_submit_finds_it(config):
    ((remote, local),) = config["file_mounts"].items()
    assert local == "."
    assert Path(remote).name == "distillery"
    assert any(f"cd {remote} && pip install" in command for command in config["setup_commands"])
    assert "--constraint constraints.txt" in config["setup_commands"][0]
    assert '"~/distillery"' in (ROOT / "orchestrator" / "submit.py").read_text()


def test_the_dashboard_runs_but_listens_to_nobody_else(config):
    (start,) = (command for command in config["head_start_ray_commands"] if "ray start" in command)
    assert "--include-dashboard=true" in start
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize(
    ("name", "stays_behind"),
    [
        ("data/imagenet/train/1.jpg", True),
        ("outputs/quickstart/runs.jsonl", True),
        ("mlruns/0/meta.yaml", True),
        ("mlflow.db", True),
        (".git/HEAD", True),
        (".venv/bin/python", True),
        ("teacher.pt", True),
        (".env", True),
        ("orchestrator/cli.py", False),
        ("distill/models/__init__.py", False),
        ("search_spaces/quickstart.yaml", False),
        ("constraints.txt", False),
    ],
)
def test_a_job_carries_code_and_nothing_else(name, stays_behind):
    excluded = get_excludes_from_ignore_files(ROOT, include_gitignore=False)
    assert any(match(ROOT / name) for match in excluded) is stays_behind


def package_files() -> list[Path]:
    folders = ("distill", "orchestrator", "search_spaces")
    return [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".yaml")]


def test_a_job_carries_all_of_the_code():
    """An ignored name without a leading slash is ignored at any depth, such as the package ``distill/data``."""
    excluded = get_excludes_from_ignore_files(ROOT, include_gitignore=True)
    files = package_files()
    assert len(files) > 100
    folders = {folder for path in files for folder in path.parents if folder.is_relative_to(ROOT) and folder != ROOT}
    assert [path for path in sorted({*files, *folders}) if any(ignores(path) for ignores in excluded)] == []


def test_nodes_get_all_of_the_code(config):
    """rsync too excludes a name without a leading slash at any depth, and one with it in the copied folder alone."""
    parts = {part for path in package_files() for part in path.relative_to(ROOT).parts}
    first = {path.relative_to(ROOT).parts[0] for path in package_files()}
    excluded = config["rsync_exclude"]
    assert not parts.intersection(name for name in excluded if not name.startswith("/"))
    assert not first.intersection(name[1:] for name in excluded if name.startswith("/"))
