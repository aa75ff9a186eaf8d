"""Colour jitter: random brightness, contrast and saturation, in a random order."""

from __future__ import annotations

import numpy as np

from slowfast.datasets.rand_augment import AugmentOp


def draw_color_jitter(strength: float, rng: np.random.Generator) -> list[AugmentOp]:
    """Three operations with factors uniform in [max(0, 1 - strength), 1 + strength]."""
    names = rng.permutation(["brightness", "contrast", "color"])
    factors = rng.uniform(max(0.0, 1.0 - strength), 1.0 + strength, size=3)
    return [AugmentOp(str(name), float(factor)) for name, factor in zip(names, factors, strict=True)]
