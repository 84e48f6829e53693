from __future__ import annotations

import pytest

from orchestrator.demand import Demand
from orchestrator.node_group import NodeGroup

LAPTOP = [NodeGroup({"CPU": 8}, 1)]
CLUSTER = [NodeGroup({"CPU": 8}, 1), NodeGroup({"CPU": 16, "GPU": 4}, 2)]


@pytest.mark.parametrize(
    ("demand", "groups", "expected"),
    [
        (Demand(), LAPTOP, 8),
        (Demand(cpus_per_worker=3), LAPTOP, 2),
        (Demand(workers=3), LAPTOP, 2),
        (Demand(cpus_per_worker=16), LAPTOP, 0),
        # What a worker needs must lie on one node: 8 + 16 + 16 CPUs are no place for one of 20.
        (Demand(cpus_per_worker=20), CLUSTER, 0),
        (Demand(gpus_per_worker=1), LAPTOP, 0),
        (Demand(gpus_per_worker=1), CLUSTER, 8),
        (Demand(gpus_per_worker=2), CLUSTER, 4),
        (Demand(gpus_per_worker=3), CLUSTER, 2),
        (Demand(workers=3, gpus_per_worker=2), CLUSTER, 1),
        (Demand(cpus_per_worker=8, gpus_per_worker=1), CLUSTER, 4),
        # A share stays on one GPU: 0.3 fits three times, though 4 / 0.3 = 13.
        (Demand(gpus_per_worker=0.3), CLUSTER, 24),
        (Demand(gpus_per_worker=0.6), CLUSTER, 8),
        (Demand(gpus_per_worker=0.1), [NodeGroup({"CPU": 99, "GPU": 1}, 1)], 10),
        (Demand(gpus_per_worker=0.25), CLUSTER, 32),
        (Demand(), [], 0),
    ],
)
def test_most_at_once(demand, groups, expected):
    assert demand.most_at_once(groups) == expected


def test_what_can_never_fit_is_refused_with_both_sides():
    Demand(workers=8, gpus_per_worker=1).check_fits(CLUSTER)
    with pytest.raises(ValueError, match=r"needs 9 workers of 1 CPU and 1 GPU each.*at most 8 such places.*2 x 16 CPU"):
        Demand(workers=9, gpus_per_worker=1).check_fits(CLUSTER)
    with pytest.raises(ValueError, match=r"needs a worker of 16 CPUs, but .* at most 0 such places \(1 x 8 CPU\)"):
        Demand(cpus_per_worker=16).check_fits(LAPTOP)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, r"run\.workers: .* found 0"),
        ({"cpus_per_worker": 0}, r"run\.cpus_per_worker: .* found 0"),
        ({"gpus_per_worker": -1}, r"run\.gpus_per_worker: .* found -1"),
        ({"gpus_per_worker": 1.5}, r"run\.gpus_per_worker: .* found 1\.5"),
    ],
)
def test_nonsense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Demand(**options)


def test_ray_is_asked_for_no_gpu_rather_than_for_none_of_them():
    assert Demand(cpus_per_worker=2).resources_per_worker() == {"CPU": 2}
    assert Demand(gpus_per_worker=0.5).resources_per_worker() == {"CPU": 1, "GPU": 0.5}
