"""A segmentation or detection run that stops and goes on is the run that never stopped, to the last bit."""

import pytest
import torch
from dense_scene import CPU, FAMILIES, SEGMENTATION, DenseScene

from distill.aggregators import Adaptive
from distill.aggregators.modifiers import CosineGate
from distill.checkpoint import CheckpointError, Checkpoints
from distill.host import LocalHost
from distill.optimization import optimizer_maker, scheduler_maker
from distill.paths import FGD, PKD, RegionLogits, SoftTarget
from distill.trainer import Recipe

RECIPE = Recipe(
    epochs=3,
    optimizer=optimizer_maker(torch.optim.SGD, {"lr": 0.002, "momentum": 0.9}),
    scheduler=scheduler_maker(torch.optim.lr_scheduler.OneCycleLR, {"max_lr": 0.004}, step="batch"),
    clip_norm=1.0,
    log_every=1,
)


class Stopping(LocalHost):
    """Asks to stop after the first epoch."""

    def should_stop(self):
        return len(self.history) >= 1


def make(family, *, host=None, folder=None, config_hash="same"):
    kinds = {"levels": PKD(), "answers": SoftTarget()}
    if family == "FasterRCNN":
        kinds |= {"objects": FGD(), "regions": RegionLogits(number=8)}
    trainer, _ = DenseScene(family).trainer(
        RECIPE,
        kinds=kinds,
        aggregator=Adaptive("layer", modifiers=[CosineGate("taps", every=2, wait=1, dense=0)]),
        host=host or LocalHost(CPU),
        checkpoints=None if folder is None else Checkpoints(folder),
        config_hash=config_hash,
    )
    return trainer


def stop(family, folder):
    stopped = make(family, host=Stopping(CPU), folder=folder)
    assert stopped.run()["status"] == "stopped"
    torch.manual_seed(999)


def difference(one, other):
    ours, theirs = one.distiller.state_dict(), other.distiller.state_dict()
    return [name for name, value in ours.items() if torch.is_tensor(value) and not torch.equal(value, theirs[name])]


@pytest.mark.parametrize("family", FAMILIES)
def test_stop_and_resume_equals_never_having_stopped(family, tmp_path):
    whole = make(family)
    expected = whole.run()
    stop(family, tmp_path)
    resumed = make(family, folder=tmp_path)
    assert resumed.resume()
    result = resumed.run()
    assert difference(whole, resumed) == []
    assert resumed.trajectory.table().equals(whole.trajectory.table())
    assert {**result, "minutes": 0} == {**expected, "minutes": 0}


@pytest.mark.parametrize("family", [SEGMENTATION, "FasterRCNN"])
def test_without_the_generators_state_resuming_differs(family, tmp_path):
    """The control: dropout, and the anchors and regions that Faster R-CNN draws, go on where they were."""
    whole = make(family)
    whole.run()
    stop(family, tmp_path)
    resumed = make(family, folder=tmp_path)
    resumed.resume()
    torch.manual_seed(999)
    resumed.run()
    assert difference(whole, resumed)


@pytest.mark.parametrize("family", [SEGMENTATION, "FasterRCNN"])
def test_evaluation_draws_nothing_that_training_draws_next(family, tmp_path):
    trainer = make(family)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trainer._evaluate(trainer.loaders.validation, trainer.targets.answers(trainer.loaders.validation))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("family", [SEGMENTATION, "FasterRCNN"])
def test_damaged_and_foreign_checkpoints_are_refused(family, tmp_path):
    stop(family, tmp_path)
    with pytest.raises(CheckpointError, match="configuration"):
        make(family, folder=tmp_path, config_hash="other").resume()
    (state,) = tmp_path.glob("*/state.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(CheckpointError, match="all checkpoints are damaged"):
        make(family, folder=tmp_path).resume()
