"""What a training hands to an aggregator that learns from held-out samples, and that it hands it nothing else."""

import copy
import dataclasses
from functools import partial

import pyarrow.parquet as pq
import pytest
import torch
from test_trainer import CPU, RECIPE, Stopping, make_trainer
from torch import nn

from distill.aggregators import DistPro, Equal, Replay
from distill.aggregators.needs import Needs
from distill.checkpoint import Checkpoints
from distill.distiller import Distiller
from distill.host import LocalHost
from distill.optimization import optimizer_maker
from distill.trainer import Recipe, Trainer


class Held(Equal):
    """Wants the held-out gradients of every other step, and keeps them."""

    def __init__(self, *scopes):
        super().__init__()
        self.scopes, self.steps, self.kept = frozenset(scopes or ("all",)), 0, []

    @property
    def own_needs(self):
        return Needs(held_out=0.25, held_out_gradients=self.scopes)

    @property
    def wants_held_out(self):
        return self.steps % 2 == 0

    def after_step(self, again=None, held_out=None):
        self.kept.append(held_out)
        self.steps += 1


def flat(parameters):
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def watched(trainer, monkeypatch):
    """Return what will be asked of the distiller: the samples of each held-out batch, and the student at the time."""
    seen = []
    ask = trainer.distiller.held_out_gradients

    def look(batch):
        student = copy.deepcopy(dict(trainer.distiller.student.named_parameters()))
        seen.append((batch, student))
        return ask(batch)

    monkeypatch.setattr(trainer.distiller, "held_out_gradients", look)
    return seen


def test_held_out_gradients_are_those_of_the_task_at_the_new_student(make_loader, monkeypatch):
    trainer = make_trainer(make_loader, aggregator=Held("last", "all"), recipe=dataclasses.replace(RECIPE, epochs=1))
    seen = watched(trainer, monkeypatch)
    trainer.run()
    aggregator, student = trainer.distiller.aggregator, trainer.distiller.student
    assert [held is not None for held in aggregator.kept] == [True, False, True]
    for (batch, parameters), held in zip(seen, aggregator.kept[::2], strict=True):
        twin = copy.deepcopy(student).train()
        twin.load_state_dict(parameters, strict=False)
        loss = nn.functional.cross_entropy(twin(batch.images), batch.labels)
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        torch.testing.assert_close(held["all"], flat(gradients), rtol=1e-4, atol=1e-6)
        names = [name for name, _ in twin.named_parameters()]
        last = [gradient for name, gradient in zip(names, gradients, strict=True) if name.startswith("layer3")]
        torch.testing.assert_close(held["last"], flat(last), rtol=1e-4, atol=1e-6)
        assert not held["all"].requires_grad


def test_batches_follow_from_the_step_and_are_no_training_images(make_loader, monkeypatch):
    trainer = make_trainer(make_loader, aggregator=Held())
    seen = watched(trainer, monkeypatch)
    trainer.run()
    loader = trainer.loaders.held_out
    assert len(seen) == 5  # of nine steps; an epoch of the held-out images has two batches
    for (batch, _), step in zip(seen, range(0, 9, 2), strict=True):
        assert batch.indices.equal(list(loader.epoch(step // 2))[step % 2].indices)
    held_out = {index for batch, _ in seen for index in batch.indices.tolist()}
    assert held_out <= set(range(48, 64))
    assert not held_out & set(trainer.loaders.train.subset.indices)


@pytest.mark.parametrize("dropout", [False, True])
def test_looking_at_held_out_samples_leaves_no_trace(make_loader, dropout):
    class Blind(Held):
        wants_held_out = False

    results, states = [], []
    for aggregator in (Held(), Blind()):
        trainer = make_trainer(make_loader, aggregator=aggregator, dropout=dropout)
        torch.manual_seed(3)
        results.append({**trainer.run(), "minutes": 0})
        states.append({**trainer.distiller.state_dict(), "drawn": torch.rand(1)})
    assert results[0] == results[1]
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_without_the_need_nobody_looks(make_loader, monkeypatch):
    monkeypatch.setattr(Distiller, "held_out_gradients", None)
    make_trainer(make_loader, aggregator=Equal(), recipe=dataclasses.replace(RECIPE, epochs=1)).run()


def test_a_training_without_held_out_samples_is_refused(make_loader):
    trainer = make_trainer(make_loader, aggregator=DistPro())
    loaders = dataclasses.replace(trainer.loaders, held_out=None)
    with pytest.raises(ValueError, match=r"DistPro learns from held-out samples: give Loaders held_out"):
        Trainer(trainer.distiller, trainer.teacher, loaders, RECIPE, LocalHost(CPU), classes=tuple("0123"))


def test_it_is_not_compiled(make_loader):
    with pytest.raises(ValueError, match="compile must be false with DistPro: gradients"):
        make_trainer(make_loader, aggregator=DistPro(), recipe=dataclasses.replace(RECIPE, compile=True))


def test_without_the_steps_in_its_state_resuming_differs(make_loader, tmp_path):
    """The control of stopping and resuming in test_trainer: it would notice looks that start anew."""
    make = partial(make_trainer, make_loader, config_hash="same")
    whole = make(aggregator=DistPro(every=2))
    whole.run()
    make(aggregator=DistPro(every=2), host=Stopping(1), checkpoints=Checkpoints(tmp_path)).run()
    resumed = make(aggregator=DistPro(every=2), checkpoints=Checkpoints(tmp_path))
    resumed.resume()
    assert resumed.distiller.aggregator.period.get_extra_state() == 3
    resumed.distiller.aggregator.period.set_extra_state(torch.tensor(0))
    resumed.run()
    logits = [dict(each.distiller.aggregator.named_buffers())["_logits"] for each in (whole, resumed)]
    assert not torch.equal(*logits)


def test_learned_weights_are_replayed_over_all_images(make_loader, tmp_path):
    recipe = dataclasses.replace(RECIPE, log_every=1)
    learned = make_trainer(make_loader, aggregator=DistPro(every=1), recipe=recipe)
    learned.run()
    learned.trajectory.write(tmp_path / "trajectory.parquet")
    weights = pq.read_table(tmp_path / "trajectory.parquet")["soft_target/weight"].to_pylist()
    assert len(set(weights)) > 5
    replayed = make_trainer(make_loader, aggregator=Replay(str(tmp_path / "trajectory.parquet")), recipe=recipe)
    replayed.run()
    table = replayed.trajectory.table()
    assert len(table) == 12 > len(weights)  # all images: four steps an epoch, not three
    found = dict(zip(table["progress"].to_pylist(), table["soft_target/weight"].to_pylist(), strict=True))
    before = dict(zip(learned.trajectory.table()["progress"].to_pylist(), weights, strict=True))
    shared = sorted(set(found) & set(before))
    assert len(shared) == 3
    assert [found[each] for each in shared] == pytest.approx([before[each] for each in shared], rel=1e-6)


def test_a_path_that_hurts_on_held_out_images_loses_weight(make_loader):
    """Of two like paths, one with the teacher's classes turned around: by the held-out labels it is found out."""
    from distill.paths.base import LogitPath

    class Turned(LogitPath):
        def loss(self, student, teacher, batch):
            return nn.functional.cross_entropy(student, (batch.labels + self.turned) % 4)

    class Right(Turned):
        turned = 0

    class Wrong(Turned):
        turned = 1

    recipe = Recipe(epochs=8, optimizer=optimizer_maker(torch.optim.SGD, {"lr": 0.02}), log_every=1)
    trainer = make_trainer(
        make_loader, aggregator=DistPro(every=1), paths={"right": Right(), "wrong": Wrong()}, recipe=recipe
    )
    trainer.run()
    right, wrong = dict(trainer.distiller.aggregator.named_buffers())["_logits"].tolist()
    assert right > 0.5
    assert wrong < -0.5
