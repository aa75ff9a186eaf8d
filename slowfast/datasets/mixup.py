"""MixUp (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a batch, with label smoothing (arXiv 1512.00567).

Notation: N clips, K classes. Clip i is mixed with clip N - 1 - i; one draw applies to all clips.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError


def smooth_one_hot(labels: torch.Tensor, num_classes: int, smoothing: float) -> torch.Tensor:
    """Return soft labels, float32 (N, K).

    Args:
        labels: Labels (N,) or soft labels (N, K).
        num_classes: Number of classes, K.
        smoothing: Fraction of the weight of a label that is distributed evenly over all K classes.
    """
    if labels.ndim == 1:
        soft = torch.zeros(len(labels), num_classes, device=labels.device)
        soft.scatter_(1, labels.long()[:, None], 1.0)
    else:
        soft = labels.float()
    return soft * (1.0 - smoothing) + smoothing / num_classes


class Mixup:
    """MixUp, which blends clips, and CutMix, which pastes a box through all frames.

    Args:
        alpha: Parameter of MixUp's beta distribution; 0 disables it.
        cutmix_alpha: Parameter of CutMix's beta distribution; 0 disables it.
        probability: Probability of mixing a batch.
        switch_probability: Probability of CutMix if both are enabled.
        smoothing: Label smoothing.
        num_classes: Number of classes.

    Raises:
        ConfigError: If both are disabled.
    """

    def __init__(
        self,
        alpha: float,
        cutmix_alpha: float,
        probability: float,
        switch_probability: float,
        smoothing: float,
        num_classes: int,
    ) -> None:
        if alpha <= 0 and cutmix_alpha <= 0:
            raise ConfigError(
                "MIXUP.ENABLE is True, but MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA are both 0. Increase one or set "
                "MIXUP.ENABLE False"
            )
        self.alpha = alpha
        self.cutmix_alpha = cutmix_alpha
        self.probability = probability
        self.switch_probability = switch_probability
        self.smoothing = smoothing
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg: ConfigNode, smoothing: float | None = None) -> Mixup:
        """Build from MIXUP; `smoothing` replaces MIXUP.LABEL_SMOOTH_VALUE, for labels that are already smoothed."""
        mix = cfg.MIXUP
        return cls(
            mix.ALPHA,
            mix.CUTMIX_ALPHA,
            mix.PROB,
            mix.SWITCH_PROB,
            mix.LABEL_SMOOTH_VALUE if smoothing is None else smoothing,
            cfg.MODEL.NUM_CLASSES,
        )

    def __call__(
        self, clips: torch.Tensor, labels: torch.Tensor, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix a batch.

        Args:
            clips: Clips (N, 3, T, H, W) or images (N, 3, H, W); changed in place.
            labels: Labels (N,) or soft labels (N, K).
            rng: Generator of the draw.

        Returns:
            The mixed clips and soft labels (N, K).
        """
        share = self._mix(clips, rng)
        soft = smooth_one_hot(labels, self.num_classes, self.smoothing)
        return clips, soft.lerp(soft.flip(0), 1.0 - share)

    def _mix(self, clips: torch.Tensor, rng: np.random.Generator) -> float:
        """Mix clips in place and return lambda, the remaining fraction of each clip."""
        if rng.random() >= self.probability:
            return 1.0
        cut = self.alpha <= 0 or (self.cutmix_alpha > 0 and rng.random() < self.switch_probability)
        beta = self.cutmix_alpha if cut else self.alpha
        share = float(rng.beta(beta, beta))
        if cut:
            rows, columns, share = _draw_cut(clips.shape[-2], clips.shape[-1], share, rng)
            box = clips[..., rows, columns]
            box.copy_(box.flip(0))
        else:
            clips.lerp_(clips.flip(0), 1.0 - share)
        return share


def _draw_cut(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[slice, slice, float]:
    """Return rows and columns of a box around a random center, clipped to the frame, and the fraction outside it."""
    ratio = math.sqrt(1.0 - share)
    edges = []
    for length in (height, width):
        center, half = int(rng.integers(length)), int(length * ratio) // 2
        edges.append(slice(max(center - half, 0), min(center + half, length)))
    rows, columns = edges
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return rows, columns, 1.0 - area / (height * width)
