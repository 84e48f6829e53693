"""What the document on segmentation and detection shows is right."""

import re
from pathlib import Path

import torch
import yaml

from distill.data import Split
from distill.data.annotated_memory import AnnotatedMemory
from distill.data.annotation import Mask
from distill.data.base import Dataset
from orchestrator.build_branches import build_branches
from orchestrator.config.document import Document
from orchestrator.config.semantics import semantics
from orchestrator.config.structure import structure

DOCUMENT = (Path(__file__).parents[1] / "docs" / "dense_tasks.md").read_text()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    assert found is not None
    return found[1]


def test_links_within_it_lead_to_a_heading():
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in DOCUMENT.splitlines() if line.startswith("#")}
    links = set(re.findall(r"\]\(#([^)]+)\)", DOCUMENT))
    assert len(links) >= 6
    assert links <= headings


def test_the_file_builds(monkeypatch):
    monkeypatch.setattr("orchestrator.build_branches.fetch", lambda choice: None)
    shown = yaml.safe_load(block("yaml"))
    scenes = {"use": "DigitScenes", "annotate": "masks", "size": shown["data"]["size"]}
    [branch] = build_branches(semantics(structure(Document("run.yaml", {**shown, "data": scenes}))))
    assert [path.name for path in branch.paths] == ["soft_target", "attention"]


def test_the_data_set_of_ones_own_loads():
    masks = torch.arange(3, dtype=torch.uint8).repeat(60, 32, 11)[:, :, :32].contiguous()
    images = torch.zeros(180, 3, 32, 32, dtype=torch.uint8)
    scope = {"Dataset": Dataset, "Mask": Mask, "Split": Split, "AnnotatedMemory": AnnotatedMemory}
    scope["given"] = (images, masks.repeat(3, 1, 1))
    exec(block("python").replace("= ... ", "= given "), scope)
    data = scope["Stripes"]().load()
    assert (len(data.train), len(data.validation), len(data.test)) == (80, 50, 50)
    assert data.classes == ("sky", "road", "car")
