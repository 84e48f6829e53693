"""How many runs share a GPU; measured memory is made up, since no GPU is at hand."""

from pathlib import Path

import pytest
import torch

from distill.aggregators import DistPro
from distill.host import LocalHost
from orchestrator.config import Design, load
from orchestrator.config.sections import RunOptions
from orchestrator.gpu_share import demanding_configs, find_demand, measure_memory, share_of_gpu
from orchestrator.node_group import NodeGroup

FILE = Path(__file__).with_name("small_experiment.yaml")
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


def measured(*aggregators):
    """Return aggregator and number of paths of what is measured for a sweep of these."""
    runs = Design(load(FILE, [f"search.aggregator.grid=[{', '.join(aggregators)}]"])).planned()
    return [(config["aggregator"]["use"], len(config["paths"])) for config in demanding_configs(runs)]


def test_what_looks_at_no_gradient_is_measured_with_all_paths_alone():
    assert measured("{use: Equal}", "{use: Adaptive}") == [("Equal", 2)]


def test_the_run_that_looks_at_most_gradients_is_measured_too():
    gates = [f"{{use: LogSum, modifiers: [{{use: CosineGate, scope: {scope}}}]}}" for scope in ("all", "taps")]
    norm = "{use: GradNorm, scope: last}"
    assert measured("{use: Equal}", gates[1]) == [("Equal", 2), ("LogSum", 2)]
    assert measured(gates[1], norm, "{use: Equal}") == [("Equal", 2), ("GradNorm", 2)]
    assert measured(norm, *gates, "{use: Equal}") == [("Equal", 2), ("LogSum", 2)]


def test_runs_that_hold_images_out_are_another_kind():
    assert measured("{use: Equal}", "{use: DistPro}") == [("Equal", 2), ("Equal", 2), ("DistPro", 2)]


def test_the_step_that_is_measured_looks_at_all_that_the_training_does(monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3, 10))
    learned = []
    monkeypatch.setattr(DistPro, "_learn", lambda self, pulls, held_out: learned.append((len(pulls), held_out.ndim)))
    [run] = Design(load(FILE, ["search=null", "aggregator={use: DistPro}"])).planned()
    assert measure_memory(run.config, LocalHost(torch.device("cpu"))) == (7, 10)
    assert learned == [(2, 1)]
