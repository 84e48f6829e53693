"""The cost of aggregators is measured on whole steps of the Trainer, for everything that a file can name."""

from __future__ import annotations

import itertools
import json
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package

from benchmarks import aggregators, paths
from benchmarks.aggregator_scene import Scene, Training
from benchmarks.aggregator_variants import Variant, make_variants
from benchmarks.workbench import PAIRS, Pair, Workbench
from distill import aggregators as registry
from distill.aggregators import DWA, FAMO, Equal, GradNorm, LogSum, modifiers
from distill.aggregators.gradients import SharedGradients
from distill.aggregators.modifiers import CosineGate
from distill.aggregators.multi_objective import DIRECTIONS, WEIGHTINGS
from distill.distiller import Distiller
from distill.models import ResNet8, ResNet20

SMALL = Pair(partial(ResNet20, width=8), partial(ResNet8, width=8), 8, ("layer1", "layer2", "layer3"))


def bench_of(**variants: Variant) -> aggregators.AggregatorBench:
    return aggregators.AggregatorBench(Workbench(pair=SMALL, batch=4), variants, live=False, steps=1)


def test_there_is_a_variant_of_everything_that_a_file_can_name(tmp_path):
    names = make_variants(tmp_path)
    first = {name.partition(" every")[0].partition(",")[0] for name in names}
    second = {name.partition(", ")[2].partition(" every")[0].partition(":")[0] for name in names}
    assert first == set(registry.__all__)
    assert second >= {*modifiers.__all__, *WEIGHTINGS, *DIRECTIONS, "diagnosis"}


def test_every_variant_makes_steps_of_its_kind(tmp_path):
    """What looks does so in every step of the one training, and in no later step of the other."""
    scenes = {}
    for name, variant in make_variants(tmp_path).items():
        scene = scenes.setdefault(variant.paths, Scene(Workbench(pair=SMALL, batch=4), variant.paths, live=False))
        if name.endswith("NashMTL") and find_spec("ecos") is None:
            continue  # its solver has no package for this Python; the benchmark leaves it out, too
        looking = scene.training(variant.make(1), variant.diagnose)
        looks = count_looks(looking, 2)
        expected = bool(looking.trainer.distiller.aggregator.needs.gradients or variant.diagnose)
        assert looks == [expected, expected], name
        if variant.every > 1 and not variant.diagnose:
            resting = scene.training(variant.make(aggregators.NEVER))
            assert count_looks(resting, 3) == [True, False, False], name


def count_looks(training: Training, steps: int) -> list[bool]:
    """Return of each step whether a gradient was taken apart from the others."""
    looks, grad = [], torch.autograd.grad
    for _ in range(steps):
        asked = []

        def spy(*arguments, asked=asked, **options):
            asked.append(True)
            return grad(*arguments, **options)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch.autograd, "grad", spy)
            training.step()
        looks.append(bool(asked))
    return looks


def test_a_step_is_the_trainers_whole_one(monkeypatch):
    called = []
    for owner, name in ((Distiller, "advance"), (Distiller, "look_again"), (FAMO, "after_step")):
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *given, name=name, call=original, **more: (called.append(name), call(*given, **more))[1]
        )
    scene = Scene(Workbench(pair=SMALL, batch=4), ("ST", "AT"), live=False)
    training = scene.training(FAMO())
    before = [parameter.detach().clone() for parameter in training.trainer.distiller.student.parameters()]
    training.step()
    assert called == ["advance", "look_again", "after_step"]
    after = training.trainer.distiller.student.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("live", [False, True])
def test_the_teacher_is_asked_in_a_step_only_where_it_runs_along(live, monkeypatch):
    scene = Scene(Workbench(pair=SMALL, batch=4), ("ST", "AT"), live=live)
    training, asked = scene.training(Equal()), []
    training.trainer.teacher.register_forward_hook(lambda *given: asked.append(True))
    training.step()
    assert bool(asked) == live
    scene.ask()
    assert len(asked) == 1 + live


def test_a_period_is_weighed_together_from_its_two_kinds_of_steps():
    bench = bench_of(
        norm=Variant(lambda every: GradNorm(every=every), every=10), look=Variant(lambda _: Equal(), 50, "last")
    )
    seconds = {
        "teacher for ST+AT+NST+Logits": [2.0, 2.0],
        "Equal on ST+AT+NST+Logits, turn 0": [1.0, 2.0],
        "norm": [3.0, 6.0],
        "norm, between two looks": [1.0, 4.0],
        "look": [2.0, 4.0],
    }
    peaks = dict.fromkeys(seconds, 2**20) | {"norm": 3 * 2**20}
    row = bench._row("norm", seconds, peaks)
    assert row["step"] == pytest.approx({"median": (1.2 + 2.1) / 2, "sd": 0.9 / 2**0.5, "n": 2})  # 12 / 10 and 42 / 20
    assert row["live"]["median"] == pytest.approx((3.2 / 3 + 6.2 / 4) / 2)
    assert row["look"]["median"] == pytest.approx(3.0)
    assert (row["peak_mib"], row["memory"]) == (3.0, 3.0)
    assert bench._row("look", seconds, peaks)["step"]["median"] == pytest.approx(1 + 1 / 50)


def test_equal_takes_its_turn_in_every_block():
    bench = bench_of(**{f"equal {number}": Variant(lambda _: Equal()) for number in range(aggregators.BLOCK + 1)})
    turns = [name for name in bench._runs if name.startswith("Equal on")]
    order = list(bench._runs)
    assert [order.index(turn) for turn in turns] == [1, 1 + aggregators.BLOCK + 1]
    assert bench._equal["equal 0"] == turns[0]
    assert bench._equal[f"equal {aggregators.BLOCK}"] == turns[1]


def test_gradients_apart_take_memory_and_time_above_those_of_equal(tmp_path):
    gate = Variant(lambda every: LogSum(modifiers=[CosineGate("all", every, dense=0)]))
    rows = bench_of(equal=Variant(lambda _: Equal()), dwa=Variant(lambda _: DWA()), gate=gate).measure(2, 1, tick())
    assert rows["equal"]["memory"] == pytest.approx(1, abs=0.01)
    assert rows["dwa"]["memory"] == pytest.approx(1, abs=0.05)
    assert rows["gate"]["memory"] > 1.1


def tick():
    """Return a clock on which every run takes one second."""
    seconds = itertools.count()
    return lambda: float(next(seconds))


def test_what_lacks_its_package_is_left_out_with_the_reason(monkeypatch):
    def missing(every):
        raise ValueError("method: needs torchjd") from ImportError("torchjd")

    def broken(every):
        raise ValueError("an option is out of bounds")

    bench = bench_of(lacking=Variant(missing), equal=Variant(lambda _: Equal()))
    assert bench.left_out == ["lacking is left out: method: needs torchjd"]
    assert list(bench.measure(2, 1, tick())) == ["equal"]
    with pytest.raises(ValueError, match="out of bounds"):
        bench_of(broken=Variant(broken))


def test_aggregators_prints_and_saves_runs(tmp_path, capsys, monkeypatch):
    file = tmp_path / "deep" / "aggregators.json"
    monkeypatch.setitem(PAIRS, "resnet20-resnet8", SMALL)
    options = ["--batch", "4", "--rounds", "2", "--warmup", "1", "--json", str(file)]
    aggregators.main([*options, "--only", "FAMO", "GradNorm", "Single"])
    aggregators.main([*options, "--only", "FAMO", "--live"])
    printed, runs = capsys.readouterr().out, json.loads(file.read_text())["runs"]
    assert set(runs) == {"cpu, resnet20-resnet8", "cpu, resnet20-resnet8, live"}
    rows = runs["cpu, resnet20-resnet8"]["variants"]
    assert list(rows) == ["FAMO", "GradNorm every 10", "Single"]
    assert {"step", "live", "look"} <= set(rows["GradNorm every 10"])
    assert rows["FAMO"]["step"]["n"] == 2
    assert set(runs["cpu, resnet20-resnet8, live"]["variants"]["FAMO"]) == {"every", "ms", "live", "peak_mib", "memory"}
    assert "GradNorm every 10" in printed
    aggregators.main([*options, "--only", "DWA"])
    more = json.loads(file.read_text())["runs"]
    assert list(more["cpu, resnet20-resnet8"]["variants"]) == ["FAMO", "GradNorm every 10", "Single", "DWA"]
    assert {**more["cpu, resnet20-resnet8"]["variants"], **rows} == more["cpu, resnet20-resnet8"]["variants"]
    before = file.read_text()
    with pytest.raises(SystemExit, match=r"resnet8' in another setting \(batch 4 there, 5 here\); name another file"):
        aggregators.main([*options, "--batch", "5", "--only", "DWA"])
    assert file.read_text() == before
    with pytest.raises(SystemExit, match="no name starts with Nothing"):
        aggregators.main(["--only", "Nothing"])


def test_gradients_of_all_losses_take_no_memory_but_their_own():
    parameters = [torch.ones(2**16, requires_grad=True), torch.ones(2**8, 2**8, requires_grad=True)]
    losses = [number * sum(each.sum() for each in parameters) for number in range(8)]
    gradients = SharedGradients(losses[0], torch.stack(losses[1:]), parameters)
    found = paths.peak_bytes(gradients.rows, torch.device("cpu"))
    # Eight gradients, and while one is computed at most two: one in a parameter made of an expanded number is copied.
    assert found <= 10.5 * sum(each.nbytes for each in parameters)
    assert found >= gradients.rows().nbytes
