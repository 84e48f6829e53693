"""How the losses of all paths become one; ``__all__`` is the registry of what YAML can name."""

from distill.aggregators.adaptive import Adaptive, AdaptivePaper
from distill.aggregators.base import Aggregate as Aggregate
from distill.aggregators.base import Aggregator as Aggregator
from distill.aggregators.base import Losses as Losses
from distill.aggregators.chebyshev import Chebyshev
from distill.aggregators.dist_pro import DistPro
from distill.aggregators.dwa import DWA
from distill.aggregators.equal import Equal
from distill.aggregators.famo import FAMO
from distill.aggregators.fixed import Fixed
from distill.aggregators.geometric_mean import GeometricMean
from distill.aggregators.grad_norm import GradNorm
from distill.aggregators.gradient_balance import GradientBalance
from distill.aggregators.gradient_direction import GradientDirection
from distill.aggregators.initial_loss import InitialLoss
from distill.aggregators.log_sum import LogSum
from distill.aggregators.order import Order
from distill.aggregators.random_weights import RandomWeights
from distill.aggregators.replay import Replay
from distill.aggregators.single import Single
from distill.aggregators.softmax_weights import SoftmaxWeights
from distill.aggregators.uncertainty_weighting import UncertaintyWeighting

__all__ = [
    "DWA",
    "FAMO",
    "Adaptive",
    "AdaptivePaper",
    "Chebyshev",
    "DistPro",
    "Equal",
    "Fixed",
    "GeometricMean",
    "GradNorm",
    "GradientBalance",
    "GradientDirection",
    "InitialLoss",
    "LogSum",
    "Order",
    "RandomWeights",
    "Replay",
    "Single",
    "SoftmaxWeights",
    "UncertaintyWeighting",
]
