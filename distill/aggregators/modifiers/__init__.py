"""What changes an aggregator's weights before they count; ``__all__`` is the registry of what YAML can name."""

from distill.aggregators.modifiers.base import Modifier as Modifier
from distill.aggregators.modifiers.bound import Bound
from distill.aggregators.modifiers.cosine_gate import CosineGate
from distill.aggregators.modifiers.normalize import Normalize
from distill.aggregators.modifiers.ramp import Ramp

__all__ = ["Bound", "CosineGate", "Normalize", "Ramp"]
