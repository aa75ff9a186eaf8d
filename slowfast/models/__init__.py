"""The networks: float clips (B, 3, T, H, W) or images (B, 3, H, W) in, logits (B, classes) out."""

from slowfast.models.build import MODELS, build_model

__all__ = ["MODELS", "build_model"]
