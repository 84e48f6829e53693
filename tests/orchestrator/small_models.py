"""Models of a user's own, as an experiment file names them under ``modules``."""

from torchvision.models import VisionTransformer


def small_transformer(*, num_classes: int) -> VisionTransformer:
    """Make a transformer of four blocks for 32x32 images in patches of 8."""
    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=4, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=num_classes
    )
