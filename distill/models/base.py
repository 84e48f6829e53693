"""What the constructors of all models here check, and how their convolutions start."""

from __future__ import annotations

from torch import nn


def check_sizes(**sizes: int) -> None:
    """Check that every size is a whole number of at least one.

    Raises:
        ValueError: one is not; the message names it.
    """
    for name, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, found {size!r}")


def blocks_per_stage(depth: int, *, outside: int) -> int:
    """Return how many two-convolution blocks each of three stages has in a network of ``depth`` layers.

    Args:
        depth: number of layers, as the network's paper counts them.
        outside: how many of them no block accounts for.

    Raises:
        ValueError: no whole number of blocks makes this depth.
    """
    check_sizes(depth=depth)
    num_blocks, rest = divmod(depth - outside, 6)
    if rest or num_blocks < 1:
        examples = ", ".join(str(6 * count + outside) for count in (1, 2, 3, 5, 6))
        raise ValueError(f"depth must be 6n+{outside} (such as {examples}), found {depth}")
    return num_blocks


def initialise_convolutions(model: nn.Module) -> None:
    """Draw every convolution's weights after He et al. 2015 (arXiv:1502.01852): normal, fan-out, gain of ReLU."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
