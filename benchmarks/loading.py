"""Whether the loader keeps up: training steps fed by it, against the same steps on batches at hand.

    python -m benchmarks.loading --json loading.json

Two cases: images in memory, cropped and mirrored (ResNet-8 at 32x32), and JPEG files, decoded, cropped and resized
(ResNet-18 at 224x224). Also says what share of the fed steps went by waiting for a batch. On a CPU decoding takes the
cores that train; with a GPU both run at once. About three minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn
from torchvision.models import resnet18

from benchmarks import timing
from benchmarks.workbench import NUM_CLASSES, sgd
from distill.batch import Batch
from distill.data import ImageFolder, Loader, Subset
from distill.data.memory_source import MemorySource
from distill.data.transforms import RandomCrop, RandomHorizontalFlip
from distill.data.transforms.base import Transform
from distill.models import ResNet8

STEPS = 10
"""In one timed run; so many that the few batches read ahead don't matter."""
NUM_FILES = 400


class Case:
    """A student, and the loader that feeds it."""

    def __init__(self, student: nn.Module, subset: Subset, transforms: Sequence[Transform], batch: int) -> None:
        self.loader = Loader(
            subset,
            batch_size=batch,
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            transforms=transforms,
            shuffle=True,
            drop_last=True,
            device=next(student.parameters()).device,
            channels_last=True,
        )
        self._student = student.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self._optimizer = sgd(student.parameters())
        self._waited: list[float] = []

    def fed(self) -> Callable[[], None]:
        """Make steps on the loader's batches, epoch after epoch."""
        batches = itertools.chain.from_iterable(self.loader.epoch(epoch) for epoch in itertools.count())

        def run() -> None:
            waited = 0.0
            for _ in range(STEPS):
                started = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - started
                self._step(batch)
            self._waited.append(waited)

        return run

    def at_hand(self) -> Callable[[], None]:
        """Make steps on batches that were loaded before."""
        batches: Iterator[Batch] = itertools.cycle(list(itertools.islice(self.loader.epoch(0), 4)))

        def run() -> None:
            for _ in range(STEPS):
                self._step(next(batches))

        return run

    def waited(self, rounds: int) -> list[float]:
        """Return the seconds that each of the last rounds' runs waited for its batches."""
        return self._waited[-rounds:]

    def _step(self, batch: Batch) -> None:
        loss = F.cross_entropy(self._student(batch.images), batch.labels)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()


def memory(device: torch.device, batch: int) -> Case:
    """Return the case of images in memory."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20 * batch, 3, 32, 32), generator=generator, dtype=torch.uint8)
    source = MemorySource(images, np.arange(len(images)) % NUM_CLASSES, tuple(map(str, range(NUM_CLASSES))))
    student = ResNet8(num_classes=NUM_CLASSES).to(device)
    return Case(student, Subset(source, np.arange(len(images))), [RandomCrop(), RandomHorizontalFlip()], batch)


def files(device: torch.device, batch: int, folder: Path, threads: int) -> Case:
    """Return the case of JPEG files of 500x375 pixels: two photographs, cut out at different places."""
    photographs = [Image.fromarray(each) for each in load_sample_images().images]  # 427x640
    places = np.random.default_rng(0).integers(0, (140, 52), size=(NUM_FILES, 2)).tolist()
    for number, (left, top) in enumerate(places):
        path = folder / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        photographs[number % 2].crop((left, top, left + 500, top + 375)).save(path, quality=90)
    data = ImageFolder(root=str(folder), num_threads=threads).load()
    return Case(resnet18(num_classes=2).to(device), data.train, data.transforms, batch)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loading", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs=2, default=(128, 8), help="samples of a step, in the two cases")
    parser.add_argument("--threads", type=int, default=2, help="that decode files")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory(prefix="distillery-bench-") as folder:
        cases = {
            "memory, 32x32": memory(device, options.batch[0]),
            "files, 224x224": files(device, options.batch[1], Path(folder), options.threads),
        }
        seconds: timing.Seconds = {}
        ratios = {}
        for name, case in cases.items():
            runs = {f"{name}: fed": case.fed(), f"{name}: at hand": case.at_hand()}
            seconds |= timing.interleave(runs, rounds=options.rounds, warmup=1, device=device)
            fed = seconds[f"{name}: fed"]
            ratios[f"{name}: fed / at hand"] = timing.compare(fed, seconds[f"{name}: at hand"])
            ratios[f"{name}: waiting / fed"] = timing.compare(case.waited(options.rounds), fed)
    for name, ratio in ratios.items():
        print(f"{name:32} {ratio}")
    if options.json:
        timing.save(options.json, timing.machine(device), seconds, ratios)


if __name__ == "__main__":
    main()
