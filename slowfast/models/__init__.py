"""Networks that map clips (B, 3, T, H, W), images (B, 3, H, W) or events to logits (B, num_classes)."""

from slowfast.models.build import MODEL_REGISTRY, build_model
from slowfast.models.protocol import Network

__all__ = ["MODEL_REGISTRY", "Network", "build_model"]
