"""Layers and initial values that several networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.models.batch_rows import draw_uniform

TILE_BYTES = 2 * 2**20  # of a second-level cache


class Mlp(nn.Module):
    """Linear, exact GELU, Linear on the last axis: (..., width) -> (..., out)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tiles = self._tiles(x)
        if tiles == 1:
            return self._tile(x)
        return torch.cat([self._tile(part) for part in x.flatten(0, -2).tensor_split(tiles)]).view(*x.shape[:-1], -1)

    def _tile(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(F.gelu(self.fc1(x)))

    def _tiles(self, x: torch.Tensor) -> int:
        """Parts of the tokens to do one after another, so that the hidden layer stays in a CPU's cache."""
        if not _tiling(x):
            return 1
        return max(1, x.numel() // x.shape[-1] * self.fc1.out_features * x.element_size() // TILE_BYTES)


def in_tiles(function: Callable[..., torch.Tensor], x: torch.Tensor, *others: torch.Tensor, axis: int) -> torch.Tensor:
    """function(x, *others), a tensor of x's shape, computed piece by piece on a CPU where no gradient is wanted.

    A piece is one clip and some places on `axis`, few enough for what becomes of it to stay in the cache. The function
    must treat clips, and places on the axis, independently. `others` have the axis of clips first; those with as many
    axes as x are cut on `axis` too.
    """
    pieces = _pieces(x, axis)
    if len(pieces) == 1:
        return function(x, *others)
    out = torch.empty_like(x)
    for piece in pieces:
        out[piece] = function(*(t[piece] if t.dim() == x.dim() else t[piece[:1]] for t in (x, *others)))
    return out


def _pieces(x: torch.Tensor, axis: int) -> list[tuple[slice, ...]]:
    """Indices of the pieces that `in_tiles` cuts x into."""
    if not _tiling(x) or x.nbytes <= TILE_BYTES:
        return [()]
    clips, places = x.shape[0], x.shape[axis]
    step = max(1, round(places * TILE_BYTES * clips / x.nbytes))
    between = (slice(None),) * (axis - 1)
    return [(slice(n, n + 1), *between, slice(i, i + step)) for n in range(clips) for i in range(0, places, step)]


def _tiling(x: torch.Tensor) -> bool:
    """A GPU wants large products, autograd keeps everything anyway, and a graph must not depend on the sizes."""
    return x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


def add_residual(x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """x + branch. Without gradients it is written over `branch`, which must be a layer's fresh output."""
    if torch.is_grad_enabled() or branch.dtype != x.dtype:
        return x + branch
    return branch.add_(x)  # memory that is in the cache already


class DropPath(nn.Module):
    """Residual sum whose branch is left out for a share `rate` of the clips in training (arXiv 1603.09382).

    A clip's branch is either 0 or scaled by 1 / (1 - rate), drawn by `batch_rows.draw_uniform`. May overwrite `branch`.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"DropPath: rate must be in [0, 1), not {rate}")
        self.rate = rate

    def forward(self, x: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.rate == 0:
            return add_residual(x, branch)
        kept = (draw_uniform(len(branch)) >= self.rate) / (1 - self.rate)  # B
        scale = kept.to(branch.device, branch.dtype, non_blocking=True)
        return torch.addcmul(x, branch, scale.view(-1, *[1] * (branch.dim() - 1)))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def init_truncated_normal(module: nn.Module, std: float = 0.02) -> None:
    """Start Linear and convolution weights from a normal cut off at +-2, their biases from 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            nn.init.trunc_normal_(layer.weight, std=std)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
