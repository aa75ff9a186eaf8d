"""Batch normalization over the joint batch of all processes, on CPUs (Gloo) and GPUs (NCCL), and after convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn

from slowfast.errors import ConfigError

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes; the gradient is summed, too."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        total = grads[0].clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm(nn.BatchNorm3d):
    """BatchNorm3d with training statistics of all processes: (B, C, T, H, W) -> same.

    Equals BatchNorm3d on the global batch, gradients included, however it is distributed. All processes must call it
    equally often. In a single process and in evaluation it is BatchNorm3d, and it always has the same state-dict keys.
    (torch.nn.SyncBatchNorm refuses CPU tensors.)
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        alone = not dist.is_initialized() or dist.get_world_size() == 1
        if alone or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        shape = (1, -1, *[1] * (input.dim() - 2))
        mean, var, count = self._joint_moments(input)
        self._update_running_stats(mean.detach(), var.detach(), count)
        scale = (var + self.eps).rsqrt()
        shift = -mean * scale
        if self.affine:
            scale, shift = scale * self.weight, shift * self.weight + self.bias
        y = torch.addcmul(shift.view(shape), input.to(scale.dtype), scale.view(shape))
        return y.to(input.dtype)

    def _joint_moments(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the mean and biased variance of each channel and the number of values, over all processes.

        The variance is the mean squared distance from the joint mean, without a difference of large numbers.
        """
        axes = [0, *range(2, x.dim())]
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        count = x.new_tensor([x.numel() // x.shape[1]])
        sums: torch.Tensor = _SumOverProcesses.apply(torch.cat([x.sum(axes), count]))
        mean, total = sums[:-1] / sums[-1], sums[-1].detach()
        centered = x - mean.view(1, -1, *[1] * (x.dim() - 2))
        var: torch.Tensor = _SumOverProcesses.apply(centered.square().sum(axes)) / total
        return mean, var, total

    @torch.no_grad()
    def _update_running_stats(self, mean: torch.Tensor, var: torch.Tensor, count: torch.Tensor) -> None:
        """Update as BatchNorm does, with the unbiased variance; momentum None is the cumulative mean."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), share)


class SyncBatchNorm2d(SyncBatchNorm):
    """BatchNorm2d with training statistics of all processes: (B, C, H, W) -> same."""

    def _check_input_dim(self, input: torch.Tensor) -> None:
        if input.dim() != 4:
            raise ValueError(f"expected a 4D input, got {input.dim()}D")


BatchNorm2dType = type[nn.BatchNorm2d] | type[SyncBatchNorm2d]


def batch_norm_2d(synchronized: bool) -> BatchNorm2dType:
    """Return the batch norm class for 2D maps, with statistics of this process or of all processes."""
    return SyncBatchNorm2d if synchronized else nn.BatchNorm2d


Conv = nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm2d | nn.BatchNorm3d
Convolve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]  # arguments: x, weight, bias


def conv_then_norm(convolve: Convolve, x: torch.Tensor, conv: Conv, norm: BatchNorm) -> torch.Tensor:
    """Return norm(conv(x)); in evaluation without gradients, the norm is folded into the convolution.

    Args:
        convolve: Function of x, weight and bias that performs the convolution.
        x: Input of the convolution.
        conv: Layer that holds weight and bias.
        norm: Batch normalization after it.
    """
    mean, var = norm.running_mean, norm.running_var
    if norm.training or torch.is_grad_enabled() or mean is None or var is None:
        return norm(convolve(x, conv.weight, conv.bias))
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    bias = -mean if conv.bias is None else conv.bias - mean
    bias = bias * scale if norm.bias is None else torch.addcmul(norm.bias, bias, scale)
    return convolve(x, conv.weight * scale.view(-1, *[1] * (conv.weight.dim() - 1)), bias)


def check_no_recomputation(cfg: ConfigNode) -> None:
    """Raise ConfigError for activation checkpointing in a network whose batch norm would count each batch twice."""
    if cfg.MODEL.ACT_CHECKPOINT:
        raise ConfigError(
            f"MODEL.ACT_CHECKPOINT: {cfg.MODEL.MODEL_NAME} does not support it, because its batch norm would count "
            "each batch twice. Set it to False"
        )
