"""MorphMLP for video (arXiv 2111.12527), after the published code of its authors (github.com/MTLab/MorphMLP).

Logits agree with the published code's for S with 16 and 32 frames and B with 16, to 1e-6 of the largest;
the published accuracies were not measured here. State dicts have the published keys and shapes.

Mixing in space, the blocks and the run over the stages stand in morphmlp_stages.py, shared with the image form.

Shapes: B clips, T frames after the stem (half of the clip's, rounded up), H x W map, C channels in G groups of S;
G is the largest divisor of C up to T.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.layers import conv_then_norm, init_truncated_normal
from slowfast.models.linear import Linear
from slowfast.models.morphmlp_stages import MorphStages, Stages, half, shared_arguments
from slowfast.models.sync_batchnorm import SyncBatchNorm
from slowfast.models.weights import StateDict, inflate_convolutions

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class TemporalFC(nn.Module):
    """Mixes the frames of a position within each group of channels, then the channels: (B, T, H, W, C) -> same."""

    MAP_AXES = "BTHWC"

    def __init__(self, width: int, frames: int, bias: bool) -> None:
        super().__init__()
        self.groups = next(g for g in range(min(frames, width), 0, -1) if width % g == 0)
        size = frames * (width // self.groups)
        self.mlp_t = Linear(size, size, bias=bias)
        self.proj = Linear(width, width)

    def reset_parameters(self) -> None:
        """Start as zero, so that the block begins as one without time; ones behind it let gradients through."""
        nn.init.zeros_(self.mlp_t.weight)
        if self.mlp_t.bias is not None:
            nn.init.zeros_(self.mlp_t.bias)
        nn.init.ones_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, h, w, c = x.shape
        x = x.reshape(b, t, h * w, self.groups, -1).permute(0, 2, 3, 1, 4)  # B HW G T S
        x = self.mlp_t(x.reshape(b, h * w, self.groups, -1))  # B HW G (T S)
        x = x.view(b, h * w, self.groups, t, -1).permute(0, 3, 1, 2, 4)  # B T HW G S
        return self.proj(x.reshape(b, t, h, w, c))


class Stem(nn.Module):
    """(B, 3, frames, height, width) -> (B, T, H, W, C) at half the frames and a quarter of the size."""

    MAP_AXES = "BTHWC"

    def __init__(self, width: int, sync_batchnorm: bool) -> None:
        super().__init__()
        norm = SyncBatchNorm if sync_batchnorm else nn.BatchNorm3d
        self.proj1 = nn.Conv3d(3, width // 2, 3, stride=2, padding=1)
        self.norm1 = norm(width // 2)
        self.proj2 = nn.Conv3d(width // 2, width, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.norm2 = norm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # In bfloat16 the gradient of this convolution destroys memory on CPUs (PyTorch 2.13, 3 channels of 224 x 224).
        unsafe = torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
        with torch.autocast("cpu", enabled=False) if unsafe else nullcontext():
            x = conv_then_norm(_halve, x, self.proj1, self.norm1).permute(0, 2, 3, 4, 1)  # B T 2H 2W C, so in memory
        x = F.gelu(x).permute(0, 4, 1, 2, 3)  # several times as slow on a CPU in the other order
        return conv_then_norm(_quarter, x, self.proj2, self.norm2).permute(0, 2, 3, 4, 1)


def _halve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """proj1. For a single clip as a batch of three-frame windows: else PyTorch takes its slow CPU convolution."""
    if torch.compiler.is_compiling() or len(x) > 1 or x.device.type != "cpu":  # an exported graph is for any batch
        return F.conv3d(x.contiguous(memory_format=torch.channels_last_3d), weight, bias, 2, 1)
    windows = F.pad(x[0], (0, 0, 0, 0, 1, 1)).unfold(1, 3, 2).permute(1, 0, 4, 2, 3)  # T 3 3 4H 4W
    windows = windows.contiguous(memory_format=torch.channels_last_3d)
    y = F.conv3d(windows, weight, bias, (1, 2, 2), (0, 1, 1))  # T C/2 1 2H 2W
    return y.transpose(0, 2)


def _quarter(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """proj2."""
    return F.conv3d(x, weight, bias, (1, 2, 2), (0, 1, 1))


class Downsample(nn.Module):
    """Between stages: (B, T, H, W, C) -> (B, T, H / 2, W / 2, C')."""

    MAP_AXES = "BTHWC"

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(width, out, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.norm = nn.LayerNorm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x.permute(0, 4, 1, 2, 3))  # a channels-last tensor stays one: no copy
        return self.norm(x.permute(0, 2, 3, 4, 1))


class MorphMLP(MorphStages):
    """MorphMLP for video: float (B, 3, num_frames, height, width) -> logits (B, num_classes).

    layers, widths, chunks and mlp_ratios have one value a stage. act_checkpoint: True, or the number of blocks of
    each stage, from its first, whose activations are computed again in the backward pass instead of kept.
    Raises ConfigError for impossible settings and, when called, for a clip that does not fit them.
    """

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        layers: Sequence[int] = (3, 4, 9, 3),
        widths: Sequence[int] = (112, 224, 392, 784),
        chunks: Sequence[int] = (14, 28, 28, 49),
        mlp_ratios: Sequence[float] = (3, 3, 3, 3),
        bias: bool = True,
        drop_depth_rate: float = 0.1,
        sync_batchnorm: bool = False,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__(
            num_classes,
            Stages(layers, widths, chunks, mlp_ratios, bias, drop_depth_rate),
            partial(Stem, sync_batchnorm=sync_batchnorm),
            Downsample,
            act_checkpoint,
            time=partial(TemporalFC, frames=half(num_frames), bias=bias),
        )
        self.num_frames = num_frames
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> MorphMLP:
        """The network of MODEL and MORPH for clips of DATA.NUM_FRAMES."""
        return cls(num_frames=cfg.DATA.NUM_FRAMES, **shared_arguments(cfg))

    def reset_parameters(self) -> None:
        """Initialize Linear and convolution weights from a truncated normal distribution, each TemporalFC its own way.

        The published code keeps PyTorch's default for the convolutions, which learned more slowly on the demo clips.
        """
        init_truncated_normal(self)
        for module in self.modules():
            if isinstance(module, TemporalFC):
                module.reset_parameters()

    def adapt_pretrained(self, state: StateDict) -> StateDict:
        """Image weights as video weights: convolutions inflated, what mixes time as it is here; video weights pass."""
        own = self.state_dict()
        if not any(_mixes_time(key) for key in state):
            state = state | {key: value for key, value in own.items() if _mixes_time(key)}
        return inflate_convolutions(state, own)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: (B, 3, num_frames, H, W) -> (B, C)."""
        if half(x.shape[2]) != half(self.num_frames):
            raise ConfigError(
                f"DATA.NUM_FRAMES: the network is for clips of {self.num_frames} frames, not {x.shape[2]}"
            )
        return super().features(x)


def _mixes_time(key: str) -> bool:
    return ".t_fc." in key or ".t_norm1." in key
