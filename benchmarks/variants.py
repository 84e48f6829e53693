"""The steps that are timed: each function makes one, ready to be called again and again."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.workbench import NUM_BATCHES, Workbench, sgd
from distill import paths
from distill.aggregators import Equal
from distill.distiller import Distiller
from distill.identity import state_digest
from distill.optimization import parameter_groups
from distill.paths import AttentionTransfer, FeatureMap, Logits, NSTGram, SoftmaxRegression, SoftTarget
from distill.targets import LocalShards, StoredTargets, TargetSource, TargetStore
from distill.tasks import Classification
from distill.teacher import Teacher

Step = Callable[[], None]

PATHS: dict[str, type[paths.Path]] = {
    "ST": SoftTarget,
    "Logits": Logits,
    "AT": AttentionTransfer,
    "SRRL": SoftmaxRegression,
    "FeatureMap": FeatureMap,
    "NST": NSTGram,
}


def plain(bench: Workbench, *, channels_last: bool) -> Step:
    """Make the supervised step as anyone writes it."""
    student, batches = bench.student(channels_last=channels_last), bench.batches(channels_last=channels_last)
    optimizer = sgd(student.parameters())
    if channels_last:
        student = bench.compiled(student)

    def step() -> None:
        batch = next(batches)
        with bench.autocast():
            output = student(batch.images)
        loss = F.cross_entropy(output.float(), batch.labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def teacher_forward(bench: Workbench) -> Step:
    """Make the teacher's forward pass alone, in our layout, on a batch at hand."""
    teacher = bench.teacher(channels_last=bench.channels_last)
    images = next(bench.batches(channels_last=bench.channels_last)).images

    def step() -> None:
        with torch.no_grad(), bench.autocast():
            teacher(images)

    return step


def live(bench: Workbench, names: Sequence[str]) -> Step:
    """Make our step with the teacher running along."""
    distiller, teacher = connected(bench, names)
    batches, optimizer = bench.batches(channels_last=bench.channels_last), sgd(parameter_groups(distiller))
    module = bench.compiled(distiller)

    def step() -> None:
        batch = next(batches)
        with bench.autocast():
            taps = teacher(batch.images)
        loss = module(batch, distiller.targets(taps)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distiller.aggregator.after_step()

    return step


def at_hand(bench: Workbench, names: Sequence[str]) -> Step:
    """Make our step with targets that were computed beforehand and wait in memory."""
    distiller, teacher = connected(bench, names)
    batches, optimizer = bench.batches(channels_last=bench.channels_last), sgd(parameter_groups(distiller))
    with bench.autocast():
        taps = [teacher(batch.images) for batch in itertools.islice(batches, NUM_BATCHES)]
    targets = itertools.cycle([distiller.targets(each) for each in taps])
    del taps
    module = bench.compiled(distiller)

    def step() -> None:
        loss = module(next(batches), next(targets)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distiller.aggregator.after_step()

    return step


def stored(bench: Workbench, names: Sequence[str], folder: Path) -> Step:
    """Make our step with targets read from the target store on disk, exact to the last bit.

    Args:
        bench: models and data.
        names: of the paths.
        folder: of the store; it is filled here.
    """
    distiller, teacher = connected(bench, names)
    optimizer = sgd(parameter_groups(distiller))
    loader = bench.loader(channels_last=bench.channels_last)
    store = StoredTargets(TargetStore(LocalShards(folder), state_digest(teacher.model)), teacher, "random images")
    source = TargetSource(distiller, teacher, store, names)
    mapped = source.open(loader, 0)
    batches = itertools.chain.from_iterable(loader.epoch(0, mapped) for _ in itertools.count())
    module = bench.compiled(distiller)

    def step() -> None:
        batch = next(batches)
        loss = module(batch, source.targets(batch)).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        distiller.aggregator.after_step()

    return step


def connected(bench: Workbench, names: Sequence[str]) -> tuple[Distiller, Teacher]:
    """Return a distiller with these paths, in training mode, and its teacher."""
    task = Classification()
    teacher = Teacher(bench.teacher(channels_last=bench.channels_last), task)
    sample = next(bench.batches(channels_last=bench.channels_last)).images[:2]
    paths = {name: PATHS[name]() for name in names}
    student = bench.student(channels_last=bench.channels_last)
    distiller = Distiller(student, teacher, paths, Equal(), task, sample=sample, precision=bench.precision)
    return distiller.to(bench.device).train(), teacher


def by_hand(bench: Workbench, names: Sequence[str]) -> Step:
    """Make a distillation step as papers' code has it: hooks, torch's layout, the teacher runs along, naive losses."""
    student, teacher = bench.student(channels_last=False), bench.teacher(channels_last=False)
    of_student, of_teacher = _hooked(student, bench.pair.stages), _hooked(teacher, bench.pair.stages)
    adapters = _adapters(bench) if "NST" in names else nn.ModuleDict()
    batches = bench.batches(channels_last=False)
    optimizer = sgd([*student.parameters(), *adapters.parameters()])

    def step() -> None:
        batch = next(batches)
        with bench.autocast():
            with torch.no_grad():
                wanted = teacher(batch.images).float()
            found = student(batch.images).float()
        loss = F.cross_entropy(found, batch.labels)
        if "ST" in names:
            loss = loss + soft_target(found, wanted)
        if "Logits" in names:
            loss = loss + F.mse_loss(found, wanted)
        for stage in bench.pair.stages:
            one, other = of_student[stage].float(), of_teacher[stage].float()
            if "AT" in names:
                loss = loss + (attention(one) - attention(other)).pow(2).mean()
            if "NST" in names:
                loss = loss + F.mse_loss(gram(adapters[stage](one)), gram(other))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def soft_target(student: Tensor, teacher: Tensor) -> Tensor:
    """Return Hinton's loss at temperature 4."""
    return 16 * F.kl_div(F.log_softmax(student / 4, 1), F.softmax(teacher / 4, 1), reduction="batchmean")


def attention(maps: Tensor) -> Tensor:
    """Return unit attention maps, ``[batch, position]``."""
    return F.normalize(maps.pow(2).mean(1).flatten(1))


def gram(maps: Tensor) -> Tensor:
    """Return the cosines between channels, ``[batch, channel, channel]``."""
    rows = F.normalize(maps.flatten(2), dim=2)
    return rows @ rows.mT


def _adapters(bench: Workbench) -> nn.ModuleDict:
    layers = {}
    student, teacher = (bench.channels(make(channels_last=False)) for make in (bench.student, bench.teacher))
    for stage, wide, out in zip(bench.pair.stages, student, teacher, strict=True):
        layers[stage] = nn.Sequential(nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out))
    return nn.ModuleDict(layers).to(bench.device)


def _hooked(model: nn.Module, stages: Sequence[str]) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}
    for stage in stages:
        model.get_submodule(stage).register_forward_hook(
            lambda module, inputs, output, stage=stage: seen.__setitem__(stage, output)
        )
    return seen


def torchdistill(bench: Workbench, names: Sequence[str]) -> Step:
    """Make the step of torchdistill 1.1.5: its hook manager, its ``KDLoss`` and ``ATLoss``, torch's layout.

    It has neither Logits nor the Gram form of NST: those are plain modules on what its hooks give.

    Raises:
        ImportError: torchdistill is not installed.
    """
    from torchdistill.core.forward_hook import ForwardHookManager  # type: ignore[import-not-found]
    from torchdistill.losses.mid_level import ATLoss, KDLoss  # type: ignore[import-not-found]

    student, teacher = bench.student(channels_last=False), bench.teacher(channels_last=False)
    of_student, of_teacher = ForwardHookManager(bench.device), ForwardHookManager(bench.device)
    for module in (*bench.pair.stages, "fc"):
        of_student.add_hook(student, module, requires_input=False, requires_output=True)
        of_teacher.add_hook(teacher, module, requires_input=False, requires_output=True)
    distillation = KDLoss("fc", "output", "fc", "output", temperature=4.0, alpha=1.0, beta=1.0)
    side = {stage: {"io": "output", "path": stage} for stage in bench.pair.stages}
    attention_transfer = ATLoss({stage: {"teacher": side[stage], "student": side[stage]} for stage in side})
    adapters = _adapters(bench) if "NST" in names else nn.ModuleDict()
    batches = bench.batches(channels_last=False)
    optimizer = sgd([*student.parameters(), *adapters.parameters()])

    def step() -> None:
        batch = next(batches)
        with bench.autocast():
            with torch.no_grad():
                teacher(batch.images)
            student(batch.images)
        found, wanted = of_student.pop_io_dict(), of_teacher.pop_io_dict()
        loss = distillation(found, wanted, batch.labels) + attention_transfer(found, wanted)
        if "Logits" in names:
            loss = loss + F.mse_loss(found["fc"]["output"], wanted["fc"]["output"])
        for stage in bench.pair.stages if "NST" in names else ():
            adapted = adapters[stage](found[stage]["output"].float())
            loss = loss + F.mse_loss(gram(adapted), gram(wanted[stage]["output"].float()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step
