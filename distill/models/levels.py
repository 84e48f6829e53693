"""Which maps a detector looks at, by stride: teacher and student share them whatever their backbones."""

from __future__ import annotations

from collections.abc import Sequence

from distill.models.backbone import Backbone


def select_levels(trunk: Backbone, strides: Sequence[int]) -> list[int]:
    """Make a backbone return those of its maps that have these strides, under ``0``, ``1``, ...

    Levels coarser than its deepest map are left to extra layers.

    Args:
        trunk: the backbone.
        strides: of all levels, each twice the one before it.

    Returns:
        Channels of the maps that it returns.

    Raises:
        ValueError: the strides do not double, or one is missing that no extra level can give.
    """
    doubled = [strides[0] * 2**number for number in range(len(strides))] if strides else []
    if not strides or strides[0] < 1 or list(strides) != doubled:
        raise ValueError(f"strides must be at least 1 and double from level to level, found {list(strides)}")
    missing = [stride for stride in strides if stride not in trunk.strides and stride <= trunk.strides[-1]]
    if missing or strides[0] > trunk.strides[-1]:
        raise ValueError(
            f"strides must begin with one of the backbone's, {', '.join(map(str, trunk.strides))}, and leave out none, "
            f"found {list(strides)}"
        )
    numbers = [trunk.strides.index(stride) for stride in strides if stride in trunk.strides]
    trunk.select({str(level): number for level, number in enumerate(numbers)})
    return [trunk.channels[number] for number in numbers]
