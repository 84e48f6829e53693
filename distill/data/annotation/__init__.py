"""What annotates images place by place: masks and boxes, and how both move with the image."""

from distill.data.annotation.base import Annotation as Annotation
from distill.data.annotation.base import Sample as Sample
from distill.data.annotation.boxes import Boxes as Boxes
from distill.data.annotation.mask import Mask as Mask

__all__ = ["Annotation", "Boxes", "Mask", "Sample"]
