"""The networks: float clips (B, 3, T, H, W) or images (B, 3, H, W) in, logits (B, classes) out."""

from slowfast.models.build import MODEL_REGISTRY, build_model
from slowfast.models.protocol import Network

__all__ = ["MODEL_REGISTRY", "Network", "build_model"]
