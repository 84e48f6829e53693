"""Models for small images, and dense models on any backbone; any other model, such as torchvision's, works as it is."""

from distill.models.cifar_resnet import CifarResNet18, CifarResNet34, CifarResNet50
from distill.models.deeplab import DeepLabV3
from distill.models.distribution_fcos import DistributionFCOS
from distill.models.faster_rcnn import FasterRCNN
from distill.models.fcn import FCN
from distill.models.fcos import FCOS
from distill.models.lraspp import LRASPP
from distill.models.resnet import ResNet8, ResNet8x4, ResNet14, ResNet20, ResNet32, ResNet32x4, ResNet56
from distill.models.retinanet import RetinaNet
from distill.models.ssd import SSD
from distill.models.ssdlite import SSDLite
from distill.models.wide_resnet import WRN_16_1, WRN_16_2, WRN_40_1, WRN_40_2, WideResNet

__all__ = [
    "FCN",
    "FCOS",
    "LRASPP",
    "SSD",
    "WRN_16_1",
    "WRN_16_2",
    "WRN_40_1",
    "WRN_40_2",
    "CifarResNet18",
    "CifarResNet34",
    "CifarResNet50",
    "DeepLabV3",
    "DistributionFCOS",
    "FasterRCNN",
    "ResNet8",
    "ResNet8x4",
    "ResNet14",
    "ResNet20",
    "ResNet32",
    "ResNet32x4",
    "ResNet56",
    "RetinaNet",
    "SSDLite",
    "WideResNet",
]
