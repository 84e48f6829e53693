"""Parts of torchvision, imported when something of them is first used.

The import brings half of torch's compiler along, and what only checks a file or compares runs needs nothing of it.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torchvision import datasets as datasets
    from torchvision import models as models
    from torchvision import ops as ops
    from torchvision import tv_tensors as tv_tensors
    from torchvision.transforms import v2 as v2
else:

    class _Late(ModuleType):
        """Stands for a module until one of its names is asked for."""

        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module(self.__name__), name)

    datasets = _Late("torchvision.datasets")
    models = _Late("torchvision.models")
    ops = _Late("torchvision.ops")
    tv_tensors = _Late("torchvision.tv_tensors")
    v2 = _Late("torchvision.transforms.v2")
