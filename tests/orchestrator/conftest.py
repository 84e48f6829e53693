from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from orchestrator.cluster import Cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Cluster]:
    """One small real cluster for all tests that need Ray: starting one takes seconds."""
    import ray

    from orchestrator.cluster import Cluster

    assert not ray.is_initialized(), "a test has left a cluster behind, whose workers don't find the tests' modules"
    # Workers find the project and the tests' own modules by the environment that they inherit.
    before = os.environ.get("PYTHONPATH")
    here = Path(__file__).parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parents[1]), *([before] if before else [])])
    try:
        with Cluster("local", num_cpus=2, with_dashboard=True) as cluster:
            yield cluster
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
