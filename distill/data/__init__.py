"""Data sets, and how their images reach a training. ``__all__`` is the registry of data sets."""

from distill.data.ade20k import ADE20K
from distill.data.cifar10 import CIFAR10
from distill.data.cifar100 import CIFAR100
from distill.data.cityscapes import Cityscapes
from distill.data.coco_detection import COCODetection
from distill.data.data import Data as Data
from distill.data.digit_scenes import DigitScenes
from distill.data.digits import Digits
from distill.data.fashion_mnist import FashionMNIST
from distill.data.image_folder import ImageFolder
from distill.data.loader import Loader as Loader
from distill.data.mask_folder import MaskFolder
from distill.data.split import Split as Split
from distill.data.subset import Subset as Subset
from distill.data.voc_detection import VOCDetection
from distill.data.voc_segmentation import VOCSegmentation

__all__ = [
    "ADE20K",
    "CIFAR10",
    "CIFAR100",
    "COCODetection",
    "Cityscapes",
    "DigitScenes",
    "Digits",
    "FashionMNIST",
    "ImageFolder",
    "MaskFolder",
    "VOCDetection",
    "VOCSegmentation",
]
