"""Does a step leave a parameter without gradient?"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping

from distill import distributed
from distill.batch import Batch
from distill.distiller import Distiller
from distill.paths import Target

log = logging.getLogger(__name__)


def has_unused_parameters(distiller: Distiller, batch: Batch, targets: Mapping[str, Target]) -> bool:
    """Whether a forward and backward pass leaves a parameter without gradient on any rank, which DDP must be told.

    Ranks may differ, as where a detector's loss leaves out a head when no image of a share has objects; DDP has to be
    told the same on all of them. All ranks call this together.

    The distiller is left as it was; a warning names the parameters.

    Args:
        distiller: not yet wrapped.
        batch: any batch of the training; each rank's own share.
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
    return distributed.any_rank(bool(unused), batch.images.device)
