"""A sweep of 12 trials over path sets, with the store and without, against 12 independent runs of a plain script.

    python -m benchmarks.sweep --json sweep.json

Two trials run at a time, one thread each. The plain script is a hand-written distillation loop that asks its teacher
for every batch, as everyone writes it, without checkpoints, tracking or evaluation of the teacher. About 15 minutes on
two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import timing
from benchmarks.commands import distillery, timed, write_experiment

EPOCHS, IMAGES, BATCH = 20, 1000, 50
EXPERIMENT: dict[str, Any] = {
    "data": {
        "use": "Digits",
        "split": {"train": IMAGES, "validation": 200, "teacher": "rest"},
        "augment": [{"use": "RandomCrop", "padding": 1}],
    },
    "teacher": {"model": {"use": "ResNet20", "width": 32}, "train": {"epochs": 1}},
    "student": {"model": {"use": "ResNet8"}},
    "paths": {
        "soft_target": {"use": "SoftTarget"},
        "logits": {"use": "Logits"},
        "attention": {"use": "AttentionTransfer"},
    },
    "train": {
        "epochs": EPOCHS,
        "batch_size": BATCH,
        "optimizer": {"use": "torch.optim.SGD", "lr": 0.05, "momentum": 0.9},
    },
    "search": {
        "paths": {"sets": [["soft_target"], ["attention"], ["soft_target", "attention"], ["logits", "attention"]]},
        "aggregator": {"grid": [{"use": "Equal"}, {"use": "Adaptive"}, {"use": "LogSum"}]},
        "seed": {"grid": [0]},
    },
}
NUM_TRIALS = 12

PLAIN = f"""
import sys, torch, torch.nn.functional as F
from distill.data import Digits
from distill.data.split import Split
from distill.models import ResNet8, ResNet20
torch.set_num_threads(1)
data = Digits(split=Split(train={IMAGES}, validation=200, teacher="rest")).load()
images, labels = data.train.read(range(len(data.train))), torch.from_numpy(data.train.labels)
held, held_labels = data.validation.read(range(len(data.validation))), torch.from_numpy(data.validation.labels)
normal = lambda images: (images.float() / 255 - 0.5) / 0.25
student, teacher = ResNet8(num_classes=10, in_channels=1), ResNet20(num_classes=10, in_channels=1, width=32).eval()
features = {{}}
for name in ("layer1", "layer2", "layer3"):
    for owner, model in (("s", student), ("t", teacher)):
        getattr(model, name).register_forward_hook(lambda m, i, o, key=owner + name: features.__setitem__(key, o))
energy = lambda f: F.normalize(f.square().sum(1).flatten(1), dim=1)
optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
for epoch in range({EPOCHS}):
    student.train()
    for chosen in torch.randperm(len(images)).split({BATCH}):
        x, y = F.pad(images[chosen], (1, 1, 1, 1)), labels[chosen]
        row, column = torch.randint(0, 3, (2,)).tolist()
        x = normal(x[:, :, row : row + 8, column : column + 8])
        with torch.no_grad():
            targets = teacher(x)
        logits = student(x)
        loss = F.cross_entropy(logits, y)
        loss = loss + 16 * F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(targets / 4, 1), reduction="batchmean")
        for name in ("layer1", "layer2", "layer3"):
            loss = loss + F.mse_loss(energy(features["s" + name]), energy(features["t" + name]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    student.eval()
    with torch.no_grad():
        (student(normal(held)).argmax(1) == held_labels).float().mean().item()
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and save where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="distillery-bench-") as folder:
        rounds = [_round(Path(folder) / str(number)) for number in range(options.rounds)]
    for name in rounds[0]["seconds"]:
        ratio = timing.compare([r["seconds"]["12 plain runs"] for r in rounds], [r["seconds"][name] for r in rounds])
        per_hour = 3600 * NUM_TRIALS / min(r["seconds"][name] for r in rounds)
        asked = rounds[0]["asked"][name]
        print(f"{name:22}{asked:>10,} images asked{per_hour:>8.0f} trials an hour; as fast as plain runs: x{ratio}")
    if options.json:
        content = {"machine": timing.machine(torch.device("cpu")), "rounds": rounds}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content, indent=1) + "\n")


def _round(folder: Path) -> dict[str, dict[str, float]]:
    folder.mkdir(parents=True)
    file = write_experiment(folder / "bench.yaml", EXPERIMENT)
    storage = f"run.storage={folder / 'outputs'}"
    timed(distillery("teach", str(file), storage), log=folder / "teach.log")
    asked_live = NUM_TRIALS * EPOCHS * IMAGES
    seconds = {"12 plain runs": _plain_runs(folder)}
    asked: dict[str, float] = {"12 plain runs": asked_live}
    for name, store in (("sweep, store off", "off"), ("sweep, store exact", "exact")):
        command = distillery("sweep", str(file), storage, f"name={store}", f"store={store}")
        seconds[name] = timed(command, log=folder / f"{store}.log")
        asked[name] = asked_live if store == "off" else _asked(folder / f"{store}.log")
    return {"seconds": seconds, "asked": asked}


def _plain_runs(folder: Path) -> float:
    """Run twelve plain scripts, two at a time."""
    script = folder / "plain.py"
    script.write_text(PLAIN)
    started = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(NUM_TRIALS):
        if len(running) == 2:
            _wait_for_one(running)
        running.append(subprocess.Popen([sys.executable, str(script)]))
    while running:
        _wait_for_one(running)
    return time.perf_counter() - started


def _wait_for_one(running: list[subprocess.Popen[bytes]]) -> None:
    while True:
        for process in running:
            if process.poll() is not None:
                if process.returncode:
                    raise RuntimeError(f"a plain run ended with {process.returncode}")
                running.remove(process)
                return
        time.sleep(0.02)


def _asked(log: Path) -> int:
    """Return for how many images the teacher was asked, as the sweep says."""
    [line] = [line for line in log.read_text().splitlines() if line.startswith("targets stored:")]
    return int(line.split(" images asked")[0].rpartition(" ")[2].replace(",", ""))


if __name__ == "__main__":
    main()
