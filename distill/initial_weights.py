"""Where a student or a teacher starts: torchvision's weights, or a checkpoint."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.fit_state import few, fit_state
from distill.late import models
from distill.safe_load import reason, safe_load

log = logging.getLogger(__name__)

_WRAPPED_AS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts keep the weights beside other things."""


def initialise(
    model: nn.Module,
    *,
    num_classes: int,
    weights: str | None = None,
    checkpoint: str | Path | None = None,
    factory: Callable[..., Any] | None = None,
) -> list[str]:
    """Load the weights that a model starts from; without ``weights`` and ``checkpoint`` it stays as it was made.

    Args:
        model: as made for ``num_classes`` classes.
        num_classes: number of classes of the data.
        weights: name of torchvision's weights, such as ``DEFAULT`` or ``IMAGENET1K_V1``; downloaded to PyTorch's hub
            cache unless they are there.
        checkpoint: a file with a state dict; see :func:`checkpoint_state`.
        factory: the function of ``torchvision.models`` that made ``model``; needed for ``weights``.

    Returns:
        What the user should know: what was loaded, and which head was replaced by a fresh one. Logged as well.

    Raises:
        ValueError: both ``weights`` and ``checkpoint`` are given, or what they name cannot be read or does not fit.
        OSError: the weights cannot be downloaded.
    """
    if weights is not None and checkpoint is not None:
        raise ValueError(
            f"give weights or checkpoint, not both, found weights {weights!r}, checkpoint {str(checkpoint)!r}"
        )
    if weights is not None:
        source, state = torchvision_state(factory, weights)
    elif checkpoint is not None:
        source, state = f"checkpoint {checkpoint}", checkpoint_state(Path(checkpoint))
    else:
        return []
    messages = fit_state(model, state, source=source, num_classes=num_classes)
    for message in messages:
        log.info("%s", message)
    return messages


def torchvision_state(factory: Callable[..., Any] | None, weights: str) -> tuple[str, Mapping[str, Tensor]]:
    """Return torchvision's weights for a factory of its own, and what to call them.

    Raises:
        ValueError: ``factory`` is not torchvision's, has no such weights, or the cached file is damaged.
        OSError: the weights cannot be downloaded.
    """
    if factory is None or not factory.__module__.startswith("torchvision.models"):
        found = "none" if factory is None else f"{factory.__module__}.{factory.__qualname__}"
        raise ValueError(
            f"weights {weights!r} are those of a model of torchvision.models, found {found}; "
            "give other models their weights by checkpoint: PATH, a torchvision network in them by weights_backbone"
        )
    choice = choose(models.get_model_weights(factory), weights, f"weights of {factory.__name__}")
    source = fetch(choice)
    # Their builder knows how old files name things; the seed of what is made later must not depend on it.
    with torch.random.fork_rng(devices=[]):
        reference: nn.Module = factory(weights=choice, progress=False)
    return source, reference.state_dict()


def choose(choices: Any, weights: str, what: str) -> Any:
    """Return one of torchvision's weights by name.

    Args:
        choices: the enumeration of all there are for a model.
        weights: the name.
        what: is named, for the message.

    Raises:
        ValueError: there are none of this name.
    """
    if weights not in choices.__members__:
        near = difflib.get_close_matches(weights, choices.__members__, n=1, cutoff=0.3)
        raise ValueError(
            f"{what} must be one of {', '.join(choices.__members__)}, found {weights!r}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    return choices[weights]


def fetch(choice: Any) -> str:
    """Bring torchvision's weights to the hub cache unless they are there, and return what to call them.

    Raises:
        ValueError: the cached file is damaged.
        OSError: the weights cannot be downloaded.
    """
    source = f"torchvision's {type(choice).__name__}.{choice.name}"
    try:
        # torchvision's builders unpickle what lies in the cache without this restriction: refuse it here first
        choice.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise OSError(
            f"{source} cannot be downloaded from {choice.url} to {torch.hub.get_dir()}/checkpoints: {error}"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{source} in {torch.hub.get_dir()}/checkpoints cannot be read: {reason(error)}; "
            "delete the file and try again"
        ) from error
    return source


def checkpoint_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file.

    The file holds the state dict itself, or a dict that has it under ``state_dict``, ``model_state_dict`` or ``model``.

    Raises:
        ValueError: the file cannot be read safely (:func:`distill.safe_load.safe_load`) or holds no state dict.
    """
    loaded = safe_load(path)
    if isinstance(loaded, dict):
        loaded = next((loaded[key] for key in _WRAPPED_AS if isinstance(loaded.get(key), dict)), loaded)
    if not isinstance(loaded, dict) or not loaded:
        found = "an empty dict" if loaded == {} else type(loaded).__name__
        raise ValueError(f"{path} must hold a state dict, found {found}")
    wrong = [f"{key} ({type(value).__name__})" for key, value in loaded.items() if not isinstance(value, Tensor)]
    if wrong:
        raise ValueError(
            f"{path} must hold a state dict, alone or under {', '.join(_WRAPPED_AS)}; "
            f"{len(wrong)} of its entries are no tensors: {few(wrong)}"
        )
    return {str(key): value for key, value in loaded.items()}
