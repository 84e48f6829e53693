import copy
import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

from distill.aggregators import (
    DWA,
    FAMO,
    Adaptive,
    DistPro,
    Equal,
    GradientBalance,
    GradientDirection,
    GradNorm,
    LogSum,
    RandomWeights,
    Replay,
    UncertaintyWeighting,
)
from distill.aggregators.modifiers import Bound, CosineGate, Ramp
from distill.aggregators.needs import Needs
from distill.batch import Samples
from distill.checkpoint import CheckpointError, Checkpoints
from distill.data.loaders import Loaders
from distill.diagnosis import Diagnosis
from distill.distiller import Distiller
from distill.finite_check import NegativeLossError, NonFiniteLossError
from distill.host import LocalHost
from distill.models import ResNet8, ResNet20
from distill.optimization import optimizer_maker, scheduler_maker
from distill.paths import CRD, AttentionTransfer, SoftTarget
from distill.paths.base import LogitPath
from distill.tasks import Classification
from distill.teacher import Teacher
from distill.trainer import Recipe, Trainer
from distill.unused_parameters import has_unused_parameters

CPU = torch.device("cpu")
RECIPE = Recipe(
    epochs=3,
    optimizer=optimizer_maker(torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    scheduler=scheduler_maker(torch.optim.lr_scheduler.OneCycleLR, {"max_lr": 0.1}, step="batch"),
    log_every=2,
)


class Dropped(nn.Module):
    """A student whose loss also depends on torch's generator."""

    def __init__(self, model):
        super().__init__()
        self.layer1, self.model = nn.Sequential(nn.Dropout2d(0.3)), model

    def forward(self, images):
        return self.model(self.layer1(images))


def make_trainer(
    make_loader, *, aggregator=None, paths=None, recipe=RECIPE, host=None, dropout=False, samples=None, **options
):
    task = Classification()
    torch.manual_seed(0)
    student = ResNet8(num_classes=4, in_channels=1, width=4)
    torch.manual_seed(1)
    teacher = Teacher(ResNet20(num_classes=4, in_channels=1, width=4), task)
    aggregator = aggregator or Adaptive()
    learns = bool(aggregator.needs.held_out)
    train = make_loader(0, 48 if learns else 64, training=True)
    held_out = make_loader(48, 64, training=True, batch_size=8) if learns else None
    paths = {"attention": AttentionTransfer(), "soft_target": SoftTarget()} if paths is None else paths
    distiller = Distiller(
        Dropped(student) if dropout else student,
        teacher,
        paths,
        aggregator,
        task,
        sample=next(iter(train.epoch(0))).images[:2],
        samples=samples,
    )
    loaders = Loaders(train, make_loader(64, 80, training=False), make_loader(80, 96, training=False), held_out)
    return Trainer(distiller, teacher, loaders, recipe, host or LocalHost(CPU), classes=tuple("0123"), **options)


def test_a_run_learns_and_reports_every_epoch(make_loader):
    host = LocalHost(CPU)
    trainer = make_trainer(make_loader, aggregator=Equal(), host=host, recipe=dataclasses.replace(RECIPE, epochs=8))
    result = trainer.run()
    assert [report["epoch"] for report in host.history] == list(range(1, 9))
    assert host.history[-1]["step"] == result["steps"] == 8 * 4
    assert host.history[-1]["train/loss/task"] < 0.5 * host.history[0]["train/loss/task"]
    assert result["status"] == "finished"
    assert result["test"]["accuracy"] > 60  # four classes, chance is 25
    assert set(host.history[0]) >= {
        "train/loss/total", "train/loss/task", "train/loss/attention", "train/weight/attention",
        "train/share/attention",
        "train/loss/soft_target", "val/accuracy", "val/agreement", "val/calibration_error", "val/loss",
    }  # fmt: skip
    shares = [host.history[0][f"train/share/{name}"] for name in ("attention", "soft_target")]
    assert 0 < sum(shares) < 1


def test_a_task_with_a_weight_of_its_own_counts_by_it(make_loader):
    host, recipe = LocalHost(CPU), dataclasses.replace(RECIPE, epochs=1, log_every=1)
    trainer = make_trainer(make_loader, aggregator=UncertaintyWeighting(include_task=True), host=host, recipe=recipe)
    trainer.run()
    [report], rows = host.history, trainer.trajectory.table().to_pylist()
    assert rows[0]["task_weight"] == 0.5
    assert report["train/task_weight"] == pytest.approx(sum(row["task_weight"] for row in rows) / len(rows))
    parts = {name: sum(row[f"{name}/weighted"] for row in rows) for name in ("attention", "soft_target")}
    whole = sum(row["task/loss"] * row["task_weight"] for row in rows) + sum(parts.values())
    assert report["train/share/attention"] == pytest.approx(parts["attention"] / whole)
    assert "train/weight/task" not in report  # which would be the weight of a path called task


def test_a_task_with_a_weight_of_its_own_is_replayed_with_it(make_loader, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=1, log_every=1)
    first = make_trainer(make_loader, aggregator=UncertaintyWeighting(include_task=True), recipe=recipe)
    first.run()
    first.trajectory.write(tmp_path / "trajectory.parquet")
    second = make_trainer(make_loader, aggregator=Replay(str(tmp_path / "trajectory.parquet")), recipe=recipe)
    second.run()
    for before, after in zip(*(run.trajectory.table().to_pylist() for run in (first, second)), strict=True):
        assert after["task_weight"] == pytest.approx(before["task_weight"], rel=1e-6)
        assert after["attention/weight"] == pytest.approx(before["attention/weight"], rel=1e-6)
        weighted = (
            after["task/loss"] * after["task_weight"] + after["attention/weighted"] + after["soft_target/weighted"]
        )
        assert after["total/loss"] == pytest.approx(weighted, rel=1e-5)


def test_the_trajectory_has_every_logged_step_once(make_loader):
    trainer = make_trainer(make_loader, aggregator=Adaptive("layer"))
    trainer.run()
    table = trainer.trajectory.table()
    assert table["step"].to_pylist() == list(range(0, 12, 2))
    assert table["attention.layer1/weight"][0].as_py() == 1.0
    assert table["attention.layer1/weight"][5].as_py() > 1.0


@pytest.mark.parametrize("granularity", ["path", "layer"])
def test_a_replayed_run_makes_the_same_student(make_loader, tmp_path, granularity):
    # Weights that moved by themselves, and the same ones as a schedule: where the rest is alike, so is every bit.
    recipe = dataclasses.replace(RECIPE, log_every=1)
    learned = make_trainer(make_loader, aggregator=Adaptive(granularity), recipe=recipe)
    learned.run()
    learned.trajectory.write(tmp_path / "trajectory.parquet")
    replay = Replay(str(tmp_path / "trajectory.parquet"), granularity=granularity)
    replayed = make_trainer(make_loader, aggregator=replay, recipe=recipe)
    replayed.run()
    for name, value in learned.distiller.student.state_dict().items():
        assert torch.equal(value, replayed.distiller.student.state_dict()[name]), name
    again, before = replayed.trajectory.table(), learned.trajectory.table()
    assert again["soft_target/weight"].equals(before["soft_target/weight"])


class Stopping(LocalHost):
    """Asks to stop after some epochs, as a killed and resumed run would see it."""

    def __init__(self, after):
        super().__init__(CPU)
        self.after = after

    def should_stop(self):
        return len(self.history) >= self.after


def same(ours, theirs):
    return torch.equal(ours, theirs) if torch.is_tensor(ours) else ours == theirs


def gated(scope, **options):
    gate = CosineGate(scope, every=3, wait=1, smoothing=0.5, z=0.1, dense=0, **options)
    return Adaptive(modifiers=[gate, Bound(growth=1.05, over=5), Ramp()])


@pytest.mark.parametrize(
    "make_aggregator",
    [
        Equal,
        Adaptive,
        partial(Adaptive, "layer"),
        partial(Adaptive, initial="log_loss"),
        LogSum,
        FAMO,
        DWA,
        RandomWeights,
        partial(GradNorm, every=3),
        partial(DistPro, every=2),
        partial(DistPro, every=4, scope="last", granularity="layer", modifiers=[Ramp()]),
        partial(GradientBalance, "PCD", every=3),
        partial(GradientBalance, "ExcessMTL", granularity="layer"),
        partial(GradientDirection, "GradDrop", scope="all"),
        partial(gated, "taps"),
        partial(gated, "last", form="smooth"),
        partial(gated, "all", start="closed"),
    ],
)
def test_stop_and_resume_equals_never_having_stopped(make_loader, tmp_path, make_aggregator):
    make = partial(make_trainer, make_loader, paths=None, dropout=True, config_hash="same")
    whole = make(aggregator=make_aggregator())
    expected = whole.run()
    stopped = make(aggregator=make_aggregator(), host=Stopping(1), checkpoints=Checkpoints(tmp_path))
    assert stopped.run()["status"] == "stopped"
    torch.manual_seed(999)
    resumed = make(aggregator=make_aggregator(), checkpoints=Checkpoints(tmp_path))
    assert resumed.resume()
    assert resumed.state.epoch == 1
    result = resumed.run()
    for name, value in whole.distiller.state_dict().items():
        torch.testing.assert_close(resumed.distiller.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert resumed.trajectory.table().equals(whole.trajectory.table())
    assert {**result, "minutes": 0} == {**expected, "minutes": 0}


def test_without_the_gate_s_state_resuming_differs(make_loader, tmp_path):
    """The control of the gated cases above: a resumed gate goes on where it was, in looks and in steps."""
    make = partial(make_trainer, make_loader, config_hash="same")
    whole = make(aggregator=gated("taps"))
    whole.run()
    stopped = make(aggregator=gated("taps"), host=Stopping(1), checkpoints=Checkpoints(tmp_path))
    stopped.run()
    assert stopped.distiller.aggregator.modifiers[0].get_extra_state() == {"step": 3}
    resumed = make(aggregator=gated("taps"), checkpoints=Checkpoints(tmp_path))
    resumed.resume()
    resumed.distiller.aggregator.modifiers[0].set_extra_state({"step": -1})
    resumed.run()
    looks = [trainer.distiller.aggregator.modifiers[0]._looks.tolist() for trainer in (whole, resumed)]
    assert looks == [[4.0, 4.0], [5.0, 5.0]]


def test_accumulated_batches_are_one_step_to_a_gate(make_loader):
    recipe = dataclasses.replace(RECIPE, accumulate=2)
    trainer = make_trainer(make_loader, aggregator=gated("taps"), recipe=recipe)
    trainer.run()
    assert trainer.state.step == 6
    assert trainer.distiller.aggregator.modifiers[0]._looks.tolist() == [2.0, 2.0]


def test_a_gate_is_not_compiled(make_loader):
    with pytest.raises(ValueError, match="compile must be false with CosineGate: gradients"):
        make_trainer(make_loader, aggregator=gated("taps"), recipe=dataclasses.replace(RECIPE, compile=True))


class SeemingTwo(LocalHost):
    """Says that there are two ranks, so that the trainer tries which parameters are used."""

    world_size = 2


def test_trying_which_parameters_are_used_leaves_a_gate_as_it_was(make_loader):
    trainer = make_trainer(make_loader, aggregator=gated("taps"), host=SeemingTwo(CPU))
    gate = trainer.distiller.aggregator.modifiers[0]
    assert gate.get_extra_state() == {"step": -1}
    assert gate._looks.tolist() == [0, 0]
    fresh = make_trainer(make_loader, aggregator=gated("taps")).distiller.state_dict()
    for name, value in trainer.distiller.state_dict().items():
        assert same(value, fresh[name]), name


def test_a_memory_of_the_samples_stops_and_resumes_with_the_run(make_loader, tmp_path):
    def make(**options):
        paths = {"contrast": CRD(num_negatives=8)}
        samples = Samples(torch.arange(64), torch.arange(64) % 4)
        return make_trainer(
            make_loader, aggregator=Equal(), paths=paths, samples=samples, config_hash="same", **options
        )

    whole = make()
    before = whole.distiller.path("contrast").bank_student.clone()
    expected = whole.run()
    assert not torch.isclose(whole.distiller.path("contrast").bank_student, before).all(dim=1).any()
    make(host=Stopping(1), checkpoints=Checkpoints(tmp_path)).run()
    torch.manual_seed(999)
    resumed = make(checkpoints=Checkpoints(tmp_path))
    assert resumed.resume()
    assert {**resumed.run(), "minutes": 0} == {**expected, "minutes": 0}
    for name, value in whole.distiller.state_dict().items():
        assert torch.equal(value, resumed.distiller.state_dict()[name]), name


def test_the_trial_for_unused_parameters_leaves_the_state_as_it_was(make_loader):
    # The trial's batch must not count as the first one, and not all state is tensors.
    trainer = make_trainer(make_loader, aggregator=Adaptive(initial="log_loss", modifiers=[CosineGate()]))
    before = copy.deepcopy(trainer.distiller.state_dict())
    batch = next(iter(trainer.loaders.train.epoch(0)))
    assert not has_unused_parameters(trainer.distiller, batch, trainer.targets.targets(batch))
    after = trainer.distiller.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name], name


class Looking(Equal):
    """Wants losses looked at again, and keeps what it is shown."""

    def __init__(self):
        super().__init__()
        self.before, self.again = [], []

    @property
    def own_needs(self):
        return Needs(second_look=True)

    def forward(self, losses):
        self.before.append(losses.paths.detach())
        return super().forward(losses)

    def after_step(self, again=None, held_out=None):
        self.again.append(again)


def crd_trainer(make_loader, aggregator, **options):
    paths = {"contrast": CRD(num_negatives=8), "soft_target": SoftTarget()}
    samples = Samples(torch.arange(64), torch.arange(64) % 4)
    return make_trainer(make_loader, aggregator=aggregator, paths=paths, samples=samples, dropout=True, **options)


def test_a_second_look_leaves_no_trace(make_loader):
    # Running statistics, a memory of samples, dropout's generator: a training is bit for bit the same without the look.
    looking, plain = crd_trainer(make_loader, Looking()), crd_trainer(make_loader, Equal())
    results = []
    for trainer in (looking, plain):
        torch.manual_seed(3)
        results.append({**trainer.run(), "minutes": 0})
    assert results[0] == results[1]
    buffers = dict(plain.distiller.named_buffers())
    for name, value in looking.distiller.named_buffers():
        assert torch.equal(value, buffers[name]), name
    for name, value in looking.distiller.state_dict().items():
        assert torch.equal(value, plain.distiller.state_dict()[name]), name
    aggregator = looking.distiller.aggregator
    assert len(aggregator.again) == len(aggregator.before) == 12
    for before, again in zip(aggregator.before, aggregator.again, strict=True):
        assert again.shape == before.shape
        assert not again.requires_grad
        assert not torch.equal(before, again)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_second_look_sees_the_last_batch_of_the_step(make_loader, accumulate):
    # At a learning rate of 0 nothing changes: the second look at a batch finds what the first one did.
    recipe = dataclasses.replace(
        RECIPE, optimizer=optimizer_maker(torch.optim.SGD, {"lr": 0.0}), scheduler=None, accumulate=accumulate, epochs=1
    )
    trainer = make_trainer(make_loader, aggregator=Looking(), recipe=recipe)
    trainer.run()
    aggregator = trainer.distiller.aggregator
    last = aggregator.before[accumulate - 1 :: accumulate]
    assert len(last) == 4 // accumulate
    assert all(torch.equal(before, again) for before, again in zip(last, aggregator.again, strict=True))


def test_without_the_need_nobody_looks_again(make_loader, monkeypatch):
    monkeypatch.setattr(Distiller, "look_again", None)
    make_trainer(make_loader, aggregator=Equal(), recipe=dataclasses.replace(RECIPE, epochs=1)).run()


def test_a_checkpoint_of_another_configuration_is_refused(make_loader, tmp_path):
    make_trainer(make_loader, host=Stopping(1), checkpoints=Checkpoints(tmp_path), config_hash="one").run()
    other = make_trainer(make_loader, checkpoints=Checkpoints(tmp_path), config_hash="two")
    with pytest.raises(CheckpointError, match="two"):
        other.resume()


def test_without_the_aggregators_state_resuming_differs(make_loader, tmp_path):
    """The control of the test above: it would notice a part that is missing from the checkpoint."""
    make = partial(make_trainer, make_loader, config_hash="same")
    whole = make()
    whole.run()
    make(host=Stopping(1), checkpoints=Checkpoints(tmp_path)).run()
    resumed = make(checkpoints=Checkpoints(tmp_path))
    resumed.resume()
    with torch.no_grad():
        resumed.distiller.aggregator.a.zero_()
    resumed.run()
    assert not torch.equal(whole.distiller.student.fc.weight, resumed.distiller.student.fc.weight)


class Exploding(LogitPath):
    """Becomes NaN at its sixth call."""

    calls = 0

    def loss(self, student, teacher, batch):
        self.calls += 1
        return student.mean() * (float("nan") if self.calls == 6 else 0.0)


def test_a_loss_that_is_not_finite_stops_at_once_and_names_path_and_step(make_loader):
    trainer = make_trainer(make_loader, aggregator=Equal(), paths={"wild": Exploding(), "soft_target": SoftTarget()})
    with pytest.raises(NonFiniteLossError, match=r"step 5 \(epoch 2, rank 0\): path wild\.logits is nan$"):
        trainer.run()
    assert all(torch.isfinite(value).all() for value in trainer.distiller.student.parameters())


def test_a_student_that_is_broken_in_evaluation_alone_does_not_finish(make_loader):
    """As after a last update that overflowed, or with running statistics that did."""
    trainer = make_trainer(make_loader)
    trainer.distiller.student.register_forward_hook(
        lambda student, images, logits: logits if student.training else logits * float("nan")
    )
    with pytest.raises(NonFiniteLossError, match="trained student's loss on the validation split is nan"):
        trainer.run()


class Sinking(LogitPath):
    """Goes below zero, and does not say so."""

    def loss(self, student, teacher, batch):
        return student.mean() * 0.0 - 2.0


@pytest.mark.parametrize("aggregator", [LogSum, FAMO])
def test_a_path_that_goes_below_zero_undeclared_stops_what_relies_on_it(make_loader, aggregator):
    trainer = make_trainer(make_loader, aggregator=aggregator(), paths={"sinking": Sinking()})
    with pytest.raises(NegativeLossError, match=r"step 0 \(epoch 1, rank 0\).*path sinking\.logits is -2\.0;"):
        trainer.run()
    make_trainer(make_loader, aggregator=Equal(), paths={"sinking": Sinking()}).run()


def test_a_stopped_run_does_not_look_at_the_test_split(make_loader):
    trainer = make_trainer(make_loader, host=Stopping(1))
    assert trainer.run()["test"] is None


class Linear(nn.Module):
    """Without BatchNorm: the gradient of a batch is the mean of its parts."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 4)

    def forward(self, images):
        return self.fc(images.flatten(1))


def test_accumulated_batches_equal_one_large_batch(make_loader):
    def train(batch_size, accumulate):
        torch.manual_seed(0)
        loader = make_loader(0, 64, training=True, batch_size=batch_size)
        student = Linear().double()
        distiller = Distiller(student, None, {}, Equal(), Classification(), sample=torch.zeros(2, 1, 8, 8).double())
        loader._mean, loader._std = loader._mean.double(), loader._std.double()
        recipe = Recipe(epochs=1, optimizer=optimizer_maker(torch.optim.SGD, {"lr": 0.1}), accumulate=accumulate)
        evaluation = make_loader(64, 80, training=False)
        evaluation._mean, evaluation._std = loader._mean, loader._std
        Trainer(distiller, None, Loaders(loader, None, evaluation), recipe, LocalHost(CPU), classes=tuple("0123")).run()
        return student.fc.weight

    # The loss is taken in float32, so that is what agreement can be asked for.
    assert torch.allclose(train(32, 1), train(16, 2), rtol=1e-6, atol=1e-7)
    assert not torch.allclose(train(32, 1), train(16, 1), rtol=1e-3)


def test_the_gradient_is_clipped(make_loader):
    norms = []

    class Watching(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [value.grad.flatten() for group in self.param_groups[:1] for value in group["params"]]
            norms.append(torch.cat(gradients).norm().item())
            return super().step(closure)

    recipe = Recipe(epochs=1, optimizer=optimizer_maker(Watching, {"lr": 0.1}), clip_norm=0.25)
    make_trainer(make_loader, recipe=recipe).run()
    assert max(norms) <= 0.25 * (1 + 1e-4)


def test_bfloat16_runs_teacher_and_student_and_stays_finite(make_loader):
    trainer = make_trainer(make_loader, recipe=dataclasses.replace(RECIPE, epochs=1))
    trainer.distiller.precision = "bfloat16"
    seen = []
    for model in (trainer.teacher.model, trainer.distiller.student):
        model.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer.run()
    assert seen.count(torch.bfloat16) >= 2 * trainer.steps_per_epoch
    assert all(torch.isfinite(value).all() for value in trainer.distiller.parameters())


def test_accumulating_more_than_an_epoch_is_refused(make_loader):
    with pytest.raises(ValueError, match="accumulate must not exceed the 4 batches"):
        make_trainer(make_loader, recipe=dataclasses.replace(RECIPE, accumulate=5))


def test_without_validation_there_are_no_validation_metrics(make_loader):
    trainer = make_trainer(make_loader)
    trainer.loaders = dataclasses.replace(trainer.loaders, validation=None)
    result = trainer.run()
    assert result["validation"] is None
    assert not any(name.startswith("val/") for name in trainer.host.history[0])
    assert result["test"]["accuracy"] >= 0


@pytest.mark.parametrize("scope", ["last", "all"])
def test_a_run_with_weights_from_gradients_learns(make_loader, scope):
    host = LocalHost(CPU)
    trainer = make_trainer(make_loader, aggregator=GradientBalance("PCD", {"tau": 0.1}, scope), host=host)
    assert trainer.run()["status"] == "finished"
    assert host.history[-1]["train/loss/task"] < 0.8 * host.history[0]["train/loss/task"]
    assert host.history[-1]["train/loss/soft_target"] < host.history[0]["train/loss/soft_target"]
    assert len({report["train/weight/attention"] for report in host.history}) == RECIPE.epochs


class TwoRanks(LocalHost):
    """As if another rank existed, which nobody asks."""

    world_size = 2


def test_a_look_for_unused_parameters_leaves_no_trace(make_loader):
    aggregator = GradientBalance("PCD", modifiers=[CosineGate(every=1, wait=1)])
    twin = make_trainer(make_loader, aggregator=copy.deepcopy(aggregator))
    trainer = make_trainer(make_loader, aggregator=aggregator, host=TwoRanks(CPU))
    assert trainer.distiller.state_dict().keys() == twin.distiller.state_dict().keys()
    for name, value in twin.distiller.state_dict().items():
        assert repr(trainer.distiller.state_dict()[name]) == repr(value), name


@pytest.mark.parametrize(
    ("make_aggregator", "names"),
    [
        (partial(GradientBalance, "PCD"), "GradientBalance"),
        (partial(GradientDirection, "ConFIG"), "GradientDirection"),
        (lambda: LogSum(modifiers=[Bound(1.0), CosineGate()]), "CosineGate"),
        (lambda: GradientBalance("PCD", modifiers=[CosineGate()]), "GradientBalance, CosineGate"),
    ],
)
def test_what_takes_gradients_on_the_way_is_not_compiled(make_loader, make_aggregator, names):
    recipe = dataclasses.replace(RECIPE, compile=True)
    with pytest.raises(ValueError, match=f"compile must be false with {names}: gradients"):
        make_trainer(make_loader, aggregator=make_aggregator(), recipe=recipe)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make_aggregator", [Adaptive, partial(Adaptive, initial="log_loss"), FAMO])
def test_a_compiled_training_is_traced_once_and_learns_the_same(make_loader, monkeypatch, make_aggregator):
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=counter))
    plain, compiled = (
        make_trainer(make_loader, aggregator=make_aggregator()),
        make_trainer(make_loader, aggregator=make_aggregator(), recipe=dataclasses.replace(RECIPE, compile=True)),
    )
    plain.run()
    compiled.run()
    torch._dynamo.reset()
    assert counter.frame_count == 1
    for name, value in plain.distiller.state_dict().items():
        torch.testing.assert_close(compiled.distiller.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_gradients_are_looked_at_as_often_as_the_recipe_says(make_loader):
    recipe = dataclasses.replace(RECIPE, accumulate=2, log_every=100, diagnosis=Diagnosis(every=4, scope="taps"))
    host = LocalHost(CPU)
    trainer = make_trainer(make_loader, recipe=recipe, host=host)
    seen = []
    trainer.distiller.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    trainer.run()
    # Six steps of two batches: the first batch of steps 0 and 4.
    assert [number for number, look in enumerate(seen) if look is not None] == [0, 8]
    table = trainer.trajectory.table()
    assert table["step"].to_pylist() == [0, 4]
    assert all(-1 <= value <= 1 for value in table["attention/cosine"].to_pylist())
    assert "train/cosine/soft_target" in host.history[0]
    assert "train/cosine/soft_target" not in host.history[1]  # steps 2 and 3
