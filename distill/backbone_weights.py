"""ImageNet weights for the backbone of a dense model, whose other parts start fresh."""

from __future__ import annotations

import inspect
import logging
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from distill.blueprint import Blueprint
from distill.fit_state import few, fit_state
from distill.initial_weights import choose, fetch, torchvision_state
from distill.late import models

log = logging.getLogger(__name__)

BACKBONE = "backbone"
"""The option of our dense models that is a network, and the module of torchvision's that holds one."""
WEIGHTS = "weights_backbone"


def find_backbone_weights(drawn: Blueprint, weights: str) -> Any:
    """Return torchvision's weights of this name for a model's backbone; nothing is loaded.

    Args:
        drawn: what the model is made from.
        weights: name of torchvision's weights, such as ``DEFAULT``.

    Raises:
        ValueError: the model has no such backbone, or this backbone no such weights.
    """
    inner = drawn.options.get(BACKBONE)
    target = inner.target if isinstance(inner, Blueprint) else drawn.target
    if target.__module__.startswith("torchvision.models"):
        choices = models.get_model_weights(target) if isinstance(inner, Blueprint) else _choices(target)
        if choices is not None:
            return choose(choices, weights, f"{WEIGHTS} of {drawn.name}")
    found = f"backbone {inner.name}" if isinstance(inner, Blueprint) else drawn.name
    raise ValueError(f"{WEIGHTS} is for dense models with a backbone of torchvision.models, found {found}")


def make_with_backbone(drawn: Blueprint, weights: str, **provided: Any) -> tuple[nn.Module, list[str]]:
    """Make a dense model whose backbone starts from weights of torchvision, and say what was loaded.

    The model is the same as without weights, parameter by parameter: torchvision's builders would freeze the first
    layers and all BatchNorms of a pretrained backbone in a detector; here all of it learns.

    Args:
        drawn: what the model is made from.
        weights: name of torchvision's weights, such as ``DEFAULT``; downloaded to PyTorch's hub cache unless they are
            there.
        provided: options that the program gives, ``num_classes`` among them.

    Raises:
        ValueError: the model has no such weights, or the cached file is damaged.
        OSError: the weights cannot be downloaded.
    """
    find_backbone_weights(drawn, weights)
    inner = drawn.options.get(BACKBONE)
    model: nn.Module
    if isinstance(inner, Blueprint):
        network: nn.Module = inner.make(**provided)
        source, state = torchvision_state(inner.target, weights)
        # Its classifier, for another number of classes than the weights', is left out of the model in any case.
        messages = fit_state(network, state, source=source, num_classes=provided["num_classes"])[:1]
        model = replace(drawn, options={**drawn.options, BACKBONE: network}).make(**provided)
    else:
        model = drawn.make(**provided)
        messages = _load(model, *_pretrained(drawn.target, weights))
    for message in messages:
        log.info("%s", message)
    return model, messages


def _choices(factory: Callable[..., Any]) -> Any:
    """Return all weights that a builder of torchvision takes for its backbone; ``None`` where it takes none."""
    annotation = typing.get_type_hints(inspect.unwrap(factory)).get(WEIGHTS)
    return next((kind for kind in typing.get_args(annotation) if kind is not type(None)), None)


def _pretrained(factory: Callable[..., Any], weights: str) -> tuple[str, dict[str, Tensor]]:
    """Return what a builder of torchvision loads into its backbone: all in there that no seed decides."""
    choice = choose(_choices(factory), weights, f"{WEIGHTS} of {factory.__name__}")
    source = fetch(choice)
    states: list[Mapping[str, Tensor]] = []
    for seed in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            reference: nn.Module = factory(weights_backbone=choice, progress=False)
        states.append(reference.state_dict())
    first, second = states
    inside = [name for name in first if name.startswith(f"{BACKBONE}.")]
    return source, {name: first[name] for name in inside if torch.equal(first[name], second[name])}


def _load(model: nn.Module, source: str, state: Mapping[str, Tensor]) -> list[str]:
    """Load what fits: torchvision's SSDLite has fewer channels at its end where it starts without weights."""
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(fitting, strict=False)
    others = [name for name in state if name not in fitting]
    messages = [f"{source}: {len(fitting)} tensors loaded into the backbone"]
    if others:
        messages.append(f"{source}: {len(others)} have another shape here, and start fresh: {few(others)}")
    return messages
