"""The paths by which knowledge reaches the student; ``__all__`` is the registry of those that YAML can name."""

from distill.paths.ab import AB
from distill.paths.affinity import Affinity
from distill.paths.attention_transfer import AttentionTransfer
from distill.paths.attention_transfer_norm import AttentionTransferNorm
from distill.paths.base import AdaptedFeaturePath as AdaptedFeaturePath
from distill.paths.base import FeaturePath as FeaturePath
from distill.paths.base import LogitPath as LogitPath
from distill.paths.base import Path as Path
from distill.paths.base import Taps as Taps
from distill.paths.base import Target as Target
from distill.paths.batch_dependent import BatchDependent as BatchDependent
from distill.paths.box_offsets import BoxOffsets
from distill.paths.cc import CC
from distill.paths.crd import CRD
from distill.paths.curriculum_temperature import CurriculumTemperature
from distill.paths.cwd import CWD
from distill.paths.dist import DIST
from distill.paths.dkd import DKD
from distill.paths.feature_map import FeatureMap
from distill.paths.fgd import FGD
from distill.paths.fsp import FSP
from distill.paths.ft import FT
from distill.paths.hint import Hint
from distill.paths.ickd import ICKD
from distill.paths.ifvd import IFVD
from distill.paths.kta import KTA
from distill.paths.ld import LD
from distill.paths.logits import Logits
from distill.paths.mgd import MGD
from distill.paths.multi_level_logits import MultiLevelLogits
from distill.paths.nst_gram import NSTGram
from distill.paths.nst_polynomial import NSTPolynomial
from distill.paths.ofd import OFD
from distill.paths.pairwise_similarity import PairwiseSimilarity
from distill.paths.pkd import PKD
from distill.paths.pkt import PKT
from distill.paths.region_logits import RegionLogits
from distill.paths.review_kd import ReviewKD
from distill.paths.rkd import RKDAngle, RKDDistance
from distill.paths.schedule import Schedule as Schedule
from distill.paths.soft_target import SoftTarget
from distill.paths.softened import SoftenedPath as SoftenedPath
from distill.paths.softmax_regression import SoftmaxRegression
from distill.paths.sp import SP
from distill.paths.srd import SRD
from distill.paths.vid import VID
from distill.paths.whole_map import WholeMapPath as WholeMapPath
from distill.paths.wsld import WSLD

__all__ = [
    "AB",
    "CC",
    "CRD",
    "CWD",
    "DIST",
    "DKD",
    "FGD",
    "FSP",
    "FT",
    "ICKD",
    "IFVD",
    "KTA",
    "LD",
    "MGD",
    "OFD",
    "PKD",
    "PKT",
    "SP",
    "SRD",
    "VID",
    "WSLD",
    "Affinity",
    "AttentionTransfer",
    "AttentionTransferNorm",
    "BoxOffsets",
    "CurriculumTemperature",
    "FeatureMap",
    "Hint",
    "Logits",
    "MultiLevelLogits",
    "NSTGram",
    "NSTPolynomial",
    "PairwiseSimilarity",
    "RKDAngle",
    "RKDDistance",
    "RegionLogits",
    "ReviewKD",
    "SoftTarget",
    "SoftmaxRegression",
]
