"""The connection to Ray: a local cluster for this sweep, or one that runs already."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from orchestrator.node_group import NodeGroup

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Runs keep the working directory of the driver: relative paths of an experiment file mean the same everywhere.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # Train's controller looks at its workers this often, and a report waits for the look: 2 s each by default.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's new output prints tables and paths even when it is told to be silent.
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # Resuming goes by our own records; Ray writes its state once, at the end, because it can't be told not to.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
}
"""What Ray reads from the environment; a user's own settings win."""

DASHBOARD = "RAY_API_SERVER_ADDRESS"
"""Where Ray's processes find the dashboard of their cluster."""

LET_US_IN = "set RAY_AUTH_MODE=token, and keep the cluster's token in ~/.ray/auth_token or RAY_AUTH_TOKEN"

UPLOADED = ("runtime_resources", "working_dir_files")
"""Folders in a row on the path of a job's uploaded working directory."""


class Cluster:
    """Ray, from ``with`` to its end; only a cluster that was started here is shut down here.

    Args:
        address: ``auto``, ``host:port`` or ``local``; None: ``RAY_ADDRESS``, a cluster that ``ray start`` has started
            on this machine, or else a new local one.
        num_cpus: CPUs of a new local cluster; None: those of this machine.
        with_dashboard: start a new local cluster with its dashboard, which runs of several workers need.
    """

    def __init__(
        self, address: str | None = None, *, num_cpus: int | None = None, with_dashboard: bool = False
    ) -> None:
        self._address = address
        self._num_cpus = num_cpus
        self._with_dashboard = with_dashboard
        self._is_ours = False
        self._names_dashboard = False

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            ValueError: there is no such cluster, or it doesn't let us in.
        """
        import ray

        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if ray.is_initialized():
            return self
        # A number of CPUs can only be given to a new cluster.
        address = "local" if self._address is None and self._num_cpus is not None else self._address
        try:
            context = ray.init(
                address,
                include_dashboard=self._with_dashboard,
                dashboard_port=self._name_dashboard() if self._with_dashboard else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                num_cpus=self._num_cpus if address == "local" else None,
            )
        except (ConnectionError, PermissionError, RuntimeError, ray.exceptions.AuthenticationError) as error:
            self._forget_dashboard()
            raise ValueError(_advice(self._address, error)) from error
        self._is_ours = True
        if self._names_dashboard and context.dashboard_url:
            os.environ[DASHBOARD] = f"http://{context.dashboard_url}"  # a cluster that ran before has its own
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_ours:
            import ray

            ray.shutdown()  # of a cluster that ran before, this only takes leave
            self._forget_dashboard()

    def node_groups(self) -> list[NodeGroup]:
        """Return the nodes that there are or, where an autoscaler says so, can be."""
        present = [NodeGroup(node["Resources"], 1) for node in _alive_nodes()]
        possible = _autoscaler_groups()
        if not possible:
            return present
        kinds = [_shape(group.resources) for group in possible]
        # The head is often of a kind that the autoscaler starts no more of: it counts beside what can be started.
        return possible + [group for group in present if _shape(group.resources) not in kinds]

    def check_state_api(self) -> None:
        """Make sure that stopped runs of several workers give their resources back.

        Ray Train frees the workers of a killed run through the State API, which the dashboard serves; without it they
        keep their CPUs and the sweep waits for ever (https://github.com/ray-project/ray/issues/54305).

        Raises:
            ValueError: the State API doesn't answer.
        """
        import ray
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        try:
            list_nodes(address=ray.get_runtime_context().gcs_address, timeout=20)
        except (RayStateApiException, OSError) as error:
            raise ValueError(
                "run.workers: runs of several workers need Ray's dashboard, which doesn't answer here; install "
                f"ray[default] and start the cluster with --include-dashboard=true ({_first_line(error)})"
            ) from error

    def _name_dashboard(self) -> int | None:
        """Choose the dashboard's port and tell all processes to come, which inherit the environment.

        Left alone, Ray's processes look for a dashboard on this machine, and find none where two clusters run: then
        Train's cleaner ends with "Found multiple active Ray instances", and killed workers keep their CPUs.
        """
        if DASHBOARD in os.environ:
            return None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        os.environ[DASHBOARD] = f"http://127.0.0.1:{port}"
        self._names_dashboard = True
        return port

    def _forget_dashboard(self) -> None:
        if self._names_dashboard:
            os.environ.pop(DASHBOARD, None)
            self._names_dashboard = False

    def check_storage(self, location: str) -> None:
        """Make sure that every node sees the results: no shared disk is taken for granted.

        Args:
            location: path or URI of the storage.

        Raises:
            ValueError: it is a folder that a job uploaded, or one that some node doesn't see.
        """
        if "://" in location and not location.startswith("file://"):
            return
        folder = Path(location.removeprefix("file://")).expanduser().absolute()
        refuse_uploaded(folder, what="run.storage")
        nodes = {node["NodeID"]: node["NodeManagerHostname"] for node in _alive_nodes()}
        if len(nodes) > 1:
            _check_shared(folder, nodes)


def refuse_uploaded(path: Path, *, what: str) -> None:
    """Refuse a place inside the folder that ``ray job submit --working-dir`` has uploaded.

    Args:
        path: where something is to be kept.
        what: the option that says so, for the message.

    Raises:
        ValueError: the path lies in an uploaded folder.
    """
    parts = path.absolute().parts
    if any(parts[at : at + 2] == UPLOADED for at in range(len(parts))):
        raise ValueError(
            f"{what}: {path} lies in the working directory that this job uploaded, which Ray deletes with the job; "
            "give an absolute path outside of it, or a URI such as s3://bucket/outputs"
        )


def _advice(address: str | None, error: Exception) -> str:
    where = address or os.environ.get("RAY_ADDRESS") or "RAY_ADDRESS"
    if "token" in str(error).lower():
        return f"--address: the cluster at {where} asks for a token: {LET_US_IN} ({_first_line(error)})"
    if isinstance(error, PermissionError):
        return (
            f"ray: cannot write {error.filename}; Ray keeps its token in ~/.ray: make the home folder writable, or set "
            "RAY_AUTH_MODE=disabled on a machine that only you use"
        )
    # Ray doesn't tell a cluster that is down from one to which it came with a wrong token, or with none.
    reason = f"cannot reach a Ray cluster at {where} ({_first_line(error)})"
    return f"--address: {reason}; where it asks for a token, {LET_US_IN}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _shape(resources: Any) -> tuple[float, float]:
    return resources.get("CPU", 0), resources.get("GPU", 0)


def _autoscaler_groups() -> list[NodeGroup]:
    """Read the bounds that an autoscaler has published; Ray has no public call for it."""
    import sys

    from ray._private.state import state

    config = state.get_cluster_config()
    groups = config.node_group_configs if config is not None else []
    unlimited = sys.maxsize
    return [
        NodeGroup(dict(group.resources), unlimited if group.max_count < 0 else group.max_count)
        for group in groups
        if group.max_count
    ]


def _alive_nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def _check_shared(folder: Path, nodes: dict[str, str]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".seen-by-all-{uuid.uuid4().hex}"
    token.touch()
    try:
        look = ray.remote(num_cpus=0, max_retries=3)(os.path.exists)
        seen = {
            node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(str(token))
            for node in nodes
        }
        blind = sorted(nodes[node] for node, found in seen.items() if not ray.get(found))
    finally:
        token.unlink()
    if blind:
        raise ValueError(
            f"run.storage: {folder} is not seen by {', '.join(blind)}; give a folder that all nodes share, or a URI "
            "such as s3://bucket/outputs"
        )
