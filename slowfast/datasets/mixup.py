"""MixUp (arXiv 1710.09412) and CutMix (arXiv 1905.04899) of a batch, with label smoothing (arXiv 1512.00567).

N clips, K classes. Every clip is mixed with the one as far from the batch's other end; one draw serves the whole batch.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError


def smooth_one_hot(labels: torch.Tensor, num_classes: int, smoothing: float) -> torch.Tensor:
    """Soft labels (N, K) float32 of class numbers (N,) or of soft labels (N, K).

    A share `smoothing` of each label's weight is spread evenly over all K classes, its own included.
    """
    if labels.ndim == 1:
        soft = torch.zeros(len(labels), num_classes, device=labels.device)
        soft.scatter_(1, labels.long()[:, None], 1.0)
    else:
        soft = labels.float()
    return soft * (1.0 - smoothing) + smoothing / num_classes


class Mixup:
    """Mixes a batch: MixUp blends whole clips, CutMix pastes one box through all frames.

    `alpha` and `cutmix_alpha` are Beta parameters (0: never), `probability` that of mixing a batch at all,
    `switch_probability` that of CutMix where both are on.
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
                "MIXUP.ENABLE is True, but MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA are both 0; raise one, "
                "or set MIXUP.ENABLE False"
            )
        self.alpha = alpha
        self.cutmix_alpha = cutmix_alpha
        self.probability = probability
        self.switch_probability = switch_probability
        self.smoothing = smoothing
        self.num_classes = num_classes

    @classmethod
    def from_config(cls, cfg: ConfigNode, smoothing: float | None = None) -> Mixup:
        """Build from MIXUP; `smoothing` replaces MIXUP.LABEL_SMOOTH_VALUE, for labels that are smoothed before."""
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
        """Mixed clips (N, 3, T, H, W) or images (N, 3, H, W), changed in place, and soft labels (N, K).

        `labels` are class numbers (N,) or soft labels (N, K).
        """
        share = self._mix(clips, rng)
        soft = smooth_one_hot(labels, self.num_classes, self.smoothing)
        return clips, soft.lerp(soft.flip(0), 1.0 - share)

    def _mix(self, clips: torch.Tensor, rng: np.random.Generator) -> float:
        """Mix the clips in place; returns the share of its own content that each keeps."""
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
    """Rows and columns of a box around a random centre, clipped to the frame, and the share it leaves."""
    ratio = math.sqrt(1.0 - share)
    edges = []
    for length in (height, width):
        centre, half = int(rng.integers(length)), int(length * ratio) // 2
        edges.append(slice(max(centre - half, 0), min(centre + half, length)))
    rows, columns = edges
    area = (rows.stop - rows.start) * (columns.stop - columns.start)
    return rows, columns, 1.0 - area / (height * width)
