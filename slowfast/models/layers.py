"""Layers and initial values that several networks share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from slowfast.models.batch_rows import draw_uniform
from slowfast.models.linear import Linear
from slowfast.models.sync_batchnorm import SyncBatchNorm2d


class Mlp(nn.Module):
    """Linear, exact GELU, Linear on the last axis: (..., width) -> (..., out)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.fc1.gelu(x))


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


class SqueezeExcite(nn.Module):
    """Scale channels by a gate computed from their mean over the map (arXiv 1709.01507): (B, C, H, W) -> same."""

    def __init__(self, width: int, hidden: int, activation: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, width, 1)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.fc2(self.activation(self.fc1(x.mean((2, 3), keepdim=True)))).sigmoid()


BatchNorm2dType = type[nn.BatchNorm2d] | type[SyncBatchNorm2d]


def batch_norm_2d(synchronized: bool) -> BatchNorm2dType:
    """Return the class of batch norm for maps, with statistics of this process or of all of them."""
    return SyncBatchNorm2d if synchronized else nn.BatchNorm2d


Conv = nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d
Convolve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]  # of x, weight, bias


def conv_then_norm(convolve: Convolve, x: torch.Tensor, conv: Conv, norm: BatchNorm) -> torch.Tensor:
    """norm(convolve(x, conv's weight and bias)); as one convolution where the norm is fixed and no gradient wanted."""
    mean, var = norm.running_mean, norm.running_var
    if norm.training or torch.is_grad_enabled() or mean is None or var is None:
        return norm(convolve(x, conv.weight, conv.bias))
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = -mean if conv.bias is None else conv.bias - mean
    bias = bias * scale if norm.bias is None else torch.addcmul(norm.bias, bias, scale)
    return convolve(x, conv.weight * scale.view(-1, *[1] * (conv.weight.dim() - 1)), bias)


def init_kaiming_normal(module: nn.Module) -> None:
    """Initialize 2D convolutions from Kaiming's normal distribution (fan out) for ReLU, and their biases with 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


_ALL_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def init_truncated_normal(
    module: nn.Module, std: float = 0.02, layers: tuple[type[nn.Module], ...] = _ALL_LAYERS
) -> None:
    """Initialize the weights of some layers from a normal distribution cut off at +-2, and their biases with 0.

    Args:
        module: Network whose layers are initialized in place.
        std: Standard deviation.
        layers: Types of the layers to initialize; Linear layers and convolutions by default.
    """
    for layer in module.modules():
        if isinstance(layer, layers):
            assert isinstance(layer.weight, torch.Tensor)
            nn.init.trunc_normal_(layer.weight, std=std)
            if isinstance(layer.bias, torch.Tensor):
                nn.init.zeros_(layer.bias)
