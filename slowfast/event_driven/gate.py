"""Which patches of a frame changed against its reference frame.

B frames, H x W pixels, n x n patches of the first stage, p pixels a side.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Reduce = Callable[[torch.Tensor, int], torch.Tensor]
# What of a patch's absolute differences is compared with the threshold: the largest, as published, or the mean.
GATES: dict[str, Reduce] = {"any": torch.amax, "mean": torch.mean}
# What a frame is compared with: the frame before, as published, or each patch as it was when last computed.
REFERENCES = ("previous", "hold")


def changed_patches(
    frames: torch.Tensor, references: torch.Tensor, patch: int, gate: str, threshold: float
) -> torch.Tensor:
    """Patches that differ by more than the threshold: (B, C, H, W) twice -> bool (B, n, n).

    A difference that is no number (a NaN pixel) is a change. With threshold 0 every patch with a changed pixel is.
    """
    reduce = GATES[gate]
    change = torch.sub(frames, references).abs_()
    b, c, h, w = change.shape
    if change.is_contiguous():
        rows = reduce(reduce(change.view(b, c, h // patch, patch, w), 3), 1)  # B n W
        patches = reduce(rows.view(b, h // patch, w // patch, patch), 3)
    else:  # channels last in memory
        rows = reduce(change.permute(0, 2, 3, 1).reshape(b, h // patch, patch, w * c), 2)  # B n (W C)
        patches = reduce(rows.view(b, h // patch, w // patch, patch * c), 3)
    return ~(patches <= threshold)
