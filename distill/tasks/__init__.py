"""The tasks; ``__all__`` is the registry of those that YAML can name."""

from distill.tasks.base import Metrics as Metrics
from distill.tasks.base import Task as Task
from distill.tasks.classification import Classification
from distill.tasks.detection import Detection
from distill.tasks.semantic_segmentation import SemanticSegmentation

__all__ = ["Classification", "Detection", "SemanticSegmentation"]
