"""From uint8 clips to what a network takes, on the clips' own device."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def normalize(
    clips: torch.Tensor, mean: Sequence[float], std: Sequence[float], reverse_channels: bool = False
) -> torch.Tensor:
    """float32 (N, 3, T, H, W) of uint8 clips (N, T, H, W, 3), or (N, 3, H, W) of images (N, H, W, 3).

    (value / 255 - mean) / std; `mean` and `std` are in the order fed to the network, which is B G R with
    `reverse_channels`. The result keeps the channels last in memory: its channel dimension is only moved in the shape.
    """
    width, channels = clips.shape[-2:]
    scale = torch.tensor([1.0 / (255.0 * s) for s in std], device=clips.device)
    shift = torch.tensor([m / s for m, s in zip(mean, std, strict=True)], device=clips.device)
    if reverse_channels:
        clips = clips.flip(-1)
    # Whole lines of pixels against repeated factors: an innermost dimension of 3 is several times slower on CPUs.
    lines = clips.flatten(-2).float()  # (N, T, H, W * 3)
    lines.mul_(scale.repeat(width)).sub_(shift.repeat(width))
    return lines.unflatten(-1, (width, channels)).movedim(-1, 1)
