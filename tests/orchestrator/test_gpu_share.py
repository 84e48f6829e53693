"""How many runs share a GPU; measured memory is made up, since no GPU is at hand."""

import pytest

from orchestrator.config.sections import RunOptions
from orchestrator.gpu_share import find_demand, share_of_gpu
from orchestrator.node_group import NodeGroup

GIB = 2**30
LAPTOP = [NodeGroup({"CPU": 8}, 1)]
CLUSTER = [NodeGroup({"CPU": 4}, 1), NodeGroup({"CPU": 16, "GPU": 2}, 4)]


def demand(run, groups, *memory):
    said = []
    found = find_demand(run, groups, measure=lambda: list(memory), say=said.append)
    return found, said


@pytest.mark.parametrize(
    ("used", "total", "most", "share"),
    [
        (10, 80, 99, 0.1428),  # 7 of them, 90 % of the memory
        (60, 80, 99, 1.0),
        (200, 80, 99, 1.0),
        (1, 80, 8, 0.125),
        (24, 80, 99, 0.3333),
    ],
)
def test_memory_and_cpus_bound_the_runs_on_a_gpu(used, total, most, share):
    found = share_of_gpu(used * GIB, total * GIB, most=most)
    assert found == share
    assert int(1 / found + 1e-9) * found <= 1


def test_a_number_is_taken_as_it_is_and_nothing_is_measured():
    found, said = demand(RunOptions(gpus_per_worker=0.5), CLUSTER)
    assert (found.gpus_per_worker, said) == (0.5, [])


def test_auto_without_a_gpu_is_none():
    assert demand(RunOptions(gpus_per_worker="auto"), LAPTOP)[0].gpus_per_worker == 0


def test_auto_gives_each_of_several_workers_a_gpu():
    found, _ = demand(RunOptions(gpus_per_worker="auto", workers=4), CLUSTER)
    assert (found.workers, found.gpus_per_worker) == (4, 1)


def test_auto_shares_by_the_most_demanding_run_and_says_so():
    found, said = demand(RunOptions(gpus_per_worker="auto"), CLUSTER, (10 * GIB, 80 * GIB), (18 * GIB, 80 * GIB))
    assert found.gpus_per_worker == 0.25
    assert said == ["a run takes 18.0 of a GPU's 80.0 GiB: 4 at a time share one (run.gpus_per_worker=0.25)"]
    assert found.most_at_once(CLUSTER) == 4 * 8


def test_cpus_beside_a_gpu_are_not_oversubscribed():
    run = RunOptions(gpus_per_worker="auto", cpus_per_worker=4)
    found, _ = demand(run, CLUSTER, (1 * GIB, 80 * GIB))
    assert found.gpus_per_worker == 0.5  # 8 CPUs a GPU, 4 a run
