from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.cluster import Cluster, refuse_uploaded
from orchestrator.node_group import NodeGroup


@pytest.fixture
def ray_calls(monkeypatch):
    """Ray as a list of the calls to it."""
    import ray

    calls = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def init(address, **options):
        calls.append((address, options, os.environ.get("RAY_API_SERVER_ADDRESS")))
        return SimpleNamespace(dashboard_url=dashboard_url)

    dashboard_url = None
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    monkeypatch.setattr("os.environ", {})
    return calls


@pytest.mark.parametrize(
    ("given", "address", "num_cpus"),
    [
        ({}, None, None),  # RAY_ADDRESS, a cluster that runs here, or a new one: Ray decides
        ({"num_cpus": 3}, "local", 3),  # only a new cluster can be given a size
        ({"address": "local", "num_cpus": 3}, "local", 3),
        ({"address": "auto", "num_cpus": 3}, "auto", None),
        ({"address": "head:6379"}, "head:6379", None),
    ],
)
def test_what_ray_is_asked_for(ray_calls, given, address, num_cpus):
    with Cluster(**given):
        (called,) = ray_calls
    assert called[0] == address
    assert called[1]["num_cpus"] == num_cpus
    assert called[1]["log_to_driver"] is False
    assert ray_calls[1:] == ["shutdown"]


def test_a_connection_that_was_there_is_left_alone(ray_calls, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    with Cluster():
        pass
    assert ray_calls == []


def test_ray_s_environment_is_set_unless_the_user_has_set_it(ray_calls):
    os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] = "5"
    with Cluster():
        assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "5"
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_ray_s_processes_are_told_where_their_dashboard_is(ray_calls):
    """Where two clusters run on a machine, they can't find out, and killed workers keep their CPUs."""
    with Cluster(with_dashboard=True):
        _, options, told = ray_calls[0]
        assert told == f"http://127.0.0.1:{options['dashboard_port']}"
    assert "RAY_API_SERVER_ADDRESS" not in os.environ
    os.environ["RAY_API_SERVER_ADDRESS"] = "http://head:8265"
    with Cluster(with_dashboard=True):
        assert ray_calls[-1][1]["dashboard_port"] is None
    assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://head:8265"


def test_a_cluster_that_ran_before_has_its_own_dashboard(ray_calls, monkeypatch):
    monkeypatch.setattr("ray.init", lambda *args, **options: SimpleNamespace(dashboard_url="10.0.0.1:8265"))
    with Cluster("auto", with_dashboard=True):
        assert os.environ["RAY_API_SERVER_ADDRESS"] == "http://10.0.0.1:8265"
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ConnectionError("Could not find any running Ray instance.\nx"),
            r"--address: cannot reach .* at head:1 \(Could.*\); where it asks for a token, set RAY_AUTH_MODE=token",
        ),
        (RuntimeError("Unauthenticated: Missing authentication token"), "RAY_AUTH_MODE=token"),
        (
            PermissionError(13, "Permission denied", "/home/ann/.ray"),
            r"cannot write /home/ann/\.ray.*home folder writable",
        ),
    ],
)
def test_a_refused_connection_comes_with_advice(ray_calls, monkeypatch, error, message):
    def refuse(*args, **options):
        raise error

    monkeypatch.setattr("ray.init", refuse)
    with pytest.raises(ValueError, match=message), Cluster("head:1"):
        pass


def nodes(*resources, alive: bool = True):
    return [{"Resources": entry, "Alive": alive, "NodeID": str(at)} for at, entry in enumerate(resources)]


def test_without_an_autoscaler_the_nodes_that_are_there_count(monkeypatch):
    monkeypatch.setattr("ray.nodes", lambda: nodes({"CPU": 8}, {"CPU": 4}) + nodes({"CPU": 99}, alive=False))
    monkeypatch.setattr("ray._private.state.state.get_cluster_config", lambda: None)
    assert Cluster().node_groups() == [NodeGroup({"CPU": 8}, 1), NodeGroup({"CPU": 4}, 1)]


def test_an_autoscaler_s_bounds_count_and_the_head_beside_them(monkeypatch):
    from ray.core.generated import autoscaler_pb2

    config = autoscaler_pb2.ClusterConfig()
    config.node_group_configs.add(name="head", resources={"CPU": 8}, max_count=0)
    config.node_group_configs.add(name="gpu", resources={"CPU": 16, "GPU": 4}, min_count=0, max_count=10)
    monkeypatch.setattr("ray.nodes", lambda: nodes({"CPU": 8, "memory": 1}, {"CPU": 16, "GPU": 4, "memory": 1}))
    monkeypatch.setattr("ray._private.state.state.get_cluster_config", lambda: config)
    assert Cluster().node_groups() == [
        NodeGroup({"CPU": 16, "GPU": 4}, 10),
        NodeGroup({"CPU": 8, "memory": 1}, 1),
    ]


def test_an_unlimited_group_holds_anything(monkeypatch):
    from ray.core.generated import autoscaler_pb2

    config = autoscaler_pb2.ClusterConfig()
    config.node_group_configs.add(name="cpu", resources={"CPU": 1}, max_count=-1)
    monkeypatch.setattr("ray.nodes", lambda: [])
    monkeypatch.setattr("ray._private.state.state.get_cluster_config", lambda: config)
    assert Cluster().node_groups()[0].count > 10**9


def test_a_missing_dashboard_is_said_before_workers_wait_for_ever(monkeypatch):
    from ray.util.state.exception import RayStateApiException

    def refuse(*, address, timeout):
        assert address == "head:6379"  # of this connection: another cluster on the machine would answer in its place
        raise RayStateApiException("Could not reach the dashboard.\nmore")

    monkeypatch.setattr("ray.get_runtime_context", lambda: SimpleNamespace(gcs_address="head:6379"))
    monkeypatch.setattr("ray.util.state.list_nodes", refuse)
    with pytest.raises(
        ValueError, match=r"ray\[default\].*--include-dashboard=true \(Could not reach the dashboard\.\)"
    ):
        Cluster().check_state_api()


UPLOADED = Path("/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1")


def test_what_lies_in_an_uploaded_folder_is_refused():
    with pytest.raises(
        ValueError, match=r"run\.storage: .*outputs lies in the working directory that this job uploaded"
    ):
        refuse_uploaded(UPLOADED / "outputs", what="run.storage")
    refuse_uploaded(Path("/data/outputs"), what="run.storage")
    refuse_uploaded(Path("/data/working_dir_files/runtime_resources"), what="run.storage")


def test_a_relative_path_of_a_job_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match="deletes with the job"):
        Cluster().check_storage("outputs")
    Cluster().check_storage("s3://bucket/outputs")


def test_a_disk_that_a_node_does_not_see_is_refused_by_the_node_s_name(tmp_path, monkeypatch):
    """Two nodes: the first sees this disk, the second sees nothing."""
    listed = [
        {"Alive": True, "NodeID": identity, "NodeManagerHostname": name, "Resources": {}}
        for identity, name in (("1" * 56, "here"), ("2" * 56, "elsewhere"))
    ]
    looks = []

    class Task:
        def options(self, *, scheduling_strategy):
            self.node = scheduling_strategy.node_id
            return self

        def remote(self, path):
            looks.append(Path(path))
            return Path(path).exists() and self.node == "1" * 56

    monkeypatch.setattr("ray.nodes", lambda: listed)
    monkeypatch.setattr("ray.remote", lambda **options: lambda function: Task())
    monkeypatch.setattr("ray.get", lambda found: found)
    with pytest.raises(ValueError, match=r"run\.storage: .* is not seen by elsewhere; .*s3://"):
        Cluster().check_storage(str(tmp_path / "outputs"))
    assert len(looks) == 2
    assert list((tmp_path / "outputs").iterdir()) == []
    monkeypatch.setattr("ray.nodes", lambda: listed[:1])
    Cluster().check_storage(str(tmp_path / "outputs"))
    assert len(looks) == 2


def test_the_module_does_not_import_ray():
    code = "import sys; import orchestrator.cluster, orchestrator.demand; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.ray
def test_a_real_cluster_answers(ray_cluster, tmp_path):
    (group,) = ray_cluster.node_groups()
    assert group.resources["CPU"] == 2
    ray_cluster.check_state_api()
    ray_cluster.check_storage(str(tmp_path))
    with Cluster() as again:  # the same connection, which stays open
        assert again.node_groups() == [group]
    assert ray_cluster.node_groups() == [group]
