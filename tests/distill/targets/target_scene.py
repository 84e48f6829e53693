"""A small teacher, its student, and augmented images: what a store is asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from classifier_paths import ON_CLASSIFIERS

from distill import paths
from distill.aggregators import Equal
from distill.batch import Samples
from distill.data import Loader, Subset
from distill.data.memory_source import MemorySource
from distill.data.transforms import RandomCrop, RandomHorizontalFlip
from distill.distiller import Distiller
from distill.identity import state_digest
from distill.models import ResNet8, ResNet14
from distill.targets import LocalShards, StoredTargets, TargetStore
from distill.tasks import Classification
from distill.teacher import Teacher

CPU = torch.device("cpu")
WIDTH = 8
"""Not 4: with channels_last, torch 2.14 on a CPU without AVX-512 corrupts memory in the backward pass of a strided 1x1
convolution of four channels."""


def all_paths():
    """Return one path of every kind whose targets can be stored, by its class's name."""
    kinds = [getattr(paths, name) for name in ON_CLASSIFIERS]
    return {kind.__name__: kind() for kind in kinds if kind.storable}


@dataclass
class Scene:
    """Everything that a training needs, made anew and always alike."""

    shards: LocalShards
    source: MemorySource
    device: torch.device = CPU

    def loader(self, first=0, last=40, *, batch_size=8, training=True, data_seed=0, views=None, transforms=None):
        default = (RandomCrop(padding=2), RandomHorizontalFlip()) if training else ()
        return Loader(
            Subset(self.source, np.arange(first, last)),
            batch_size=batch_size,
            mean=(0.5,),
            std=(0.25,),
            transforms=default if transforms is None else transforms,
            data_seed=data_seed,
            shuffle=training,
            drop_last=training,
            device=self.device,
            views=views,
            channels_last=True,
        )

    def teacher(self, seed=1):
        torch.manual_seed(seed)
        model = ResNet14(num_classes=4, in_channels=1, width=WIDTH)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
        return Teacher(model.to(self.device, memory_format=torch.channels_last), Classification())

    def distiller(self, teacher, paths=None, aggregator=None):
        aggregator = aggregator or Equal()
        torch.manual_seed(0)
        student = ResNet8(num_classes=4, in_channels=1, width=WIDTH)
        student = student.to(self.device, memory_format=torch.channels_last)
        sample = self.loader().batch_at(np.arange(2), 0).images
        if paths is None:
            paths = {
                name: path for name, path in all_paths().items() if path.non_negative or aggregator.accepts_negative
            }
        samples = Samples(torch.arange(len(self.source.labels)), torch.from_numpy(self.source.labels))
        distiller = Distiller(student, teacher, paths, aggregator, Classification(), sample=sample, samples=samples)
        return distiller.to(self.device)

    def stored(self, teacher, *, fingerprint="data", **options):
        store = TargetStore(self.shards, state_digest(teacher.model), **options)
        return StoredTargets(store, teacher, fingerprint)


def make_scene(folder):
    """Return a scene whose store is empty and lies in ``folder``."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 12, 12), dtype=torch.uint8, generator=generator)
    source = MemorySource(images, np.arange(60, dtype=np.int64) % 4, ("a", "b", "c", "d"))
    return Scene(LocalShards(folder), source)
