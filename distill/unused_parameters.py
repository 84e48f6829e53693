"""Does a step leave a parameter without gradient?"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping

from distill.batch import Batch
from distill.distiller import Distiller
from distill.paths import Target

log = logging.getLogger(__name__)


def has_unused_parameters(distiller: Distiller, batch: Batch, targets: Mapping[str, Target]) -> bool:
    """Whether a forward and backward pass leaves a parameter without gradient, which DDP must be told.

    The distiller is left as it was; a warning names the parameters.

    Args:
        distiller: not yet wrapped.
        batch: any batch of the training.
        targets: of its samples.
    """
    mode = distiller.training
    state = copy.deepcopy(distiller.state_dict())  # of tensors, and of whatever modules keep beside them
    distiller.train()
    distiller(batch, targets).total.backward()
    unused = [name for name, value in distiller.named_parameters() if value.requires_grad and value.grad is None]
    distiller.zero_grad(set_to_none=True)
    distiller.load_state_dict(state)
    distiller.train(mode)
    if unused:
        log.warning("parameters without gradient, which slows DDP down: %s", ", ".join(unused))
    return bool(unused)
