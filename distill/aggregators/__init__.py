"""How the losses of all paths become one; ``__all__`` is the registry of what YAML can name."""

from distill.aggregators.adaptive import Adaptive, AdaptivePaper
from distill.aggregators.base import Aggregate as Aggregate
from distill.aggregators.base import Aggregator as Aggregator
from distill.aggregators.base import Losses as Losses
from distill.aggregators.equal import Equal
from distill.aggregators.fixed import Fixed
from distill.aggregators.gradient_balance import GradientBalance
from distill.aggregators.gradient_direction import GradientDirection
from distill.aggregators.log_sum import LogSum
from distill.aggregators.single import Single

__all__ = ["Adaptive", "AdaptivePaper", "Equal", "Fixed", "GradientBalance", "GradientDirection", "LogSum", "Single"]
