"""Dropout whose draws do not depend on the number of processes."""

from __future__ import annotations

import torch
from torch import nn

from slowfast.models.batch_rows import draw_uniform


class Dropout(nn.Module):
    """In training, zero a share `rate` of the values and scale the others by 1 / (1 - rate): (B, ...) -> same.

    Unlike torch's it draws by `batch_rows.draw_uniform`, so that each clip gets the numbers a single process gives it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout: rate must be in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = (draw_uniform(*x.shape) >= self.rate) / (1 - self.rate)
        return x * kept.to(x.device, x.dtype, non_blocking=True)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
