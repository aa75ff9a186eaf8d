"""MorphMLP for video and images (arXiv 2111.12527), after its authors' published code (github.com/MTLab/MorphMLP).

Video: logits agree with the published code for S with 16 and 32 frames and B with 16, to 1e-6 of the largest; the
published accuracies were not measured here. State dicts have the published keys and shapes.

Images: the video network without temporal layers, for which no code was published. State dicts have the video network's
keys without those of temporal layers, and 2D convolutions, as `MorphMLP.adapt_pretrained` takes them. Verified: the
video network made from image weights gives their logits for a clip of one repeated frame.

The stages are in morphmlp_stages.py. For images, their time axis has length 1.

Notation: B clips, T frames after the stem (half of the clip's, rounded up), H x W map, C channels in G groups of S;
G is the largest divisor of C that is at most T.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.batch_norm import SyncBatchNorm, SyncBatchNorm2d, conv_then_norm
from slowfast.models.layers import init_truncated_normal
from slowfast.models.linear import Linear
from slowfast.models.morphmlp_stages import MorphStages, Stages, halved, shared_arguments
from slowfast.models.protocol import IMAGES, MODEL_REGISTRY, FeatureMap, StateDict, check_image

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class TemporalFC(FeatureMap, nn.Module):
    """Temporal layer: mixes the frames of a position within each group of channels, then the channels.

    (B, T, H, W, C) -> same.
    """

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, frames: int, bias: bool) -> None:
        super().__init__()
        self.groups = next(g for g in range(min(frames, dim), 0, -1) if dim % g == 0)
        hidden_dim = frames * (dim // self.groups)
        self.mlp_t = Linear(hidden_dim, hidden_dim, bias=bias)
        self.proj = Linear(dim, dim)

    def reset_parameters(self) -> None:
        """Initialize with zeros, so that the block starts without temporal mixing; ones after it let gradients pass."""
        nn.init.zeros_(self.mlp_t.weight)
        if self.mlp_t.bias is not None:
            nn.init.zeros_(self.mlp_t.bias)
        nn.init.ones_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = x.shape[1]
        y = self.mlp_t(rearrange(x, "b t h w (g s) -> b h w g (t s)", g=self.groups))
        return self.proj(rearrange(y, "b h w g (t s) -> b t h w (g s)", t=t))


class Stem(FeatureMap, nn.Module):
    """(B, 3, frames, height, width) -> (B, T, H, W, C) with half the frames and a quarter of the size."""

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, sync_batchnorm: bool) -> None:
        super().__init__()
        norm = SyncBatchNorm if sync_batchnorm else nn.BatchNorm3d
        self.proj1 = nn.Conv3d(3, dim // 2, 3, stride=2, padding=1)
        self.norm1 = norm(dim // 2)
        self.proj2 = nn.Conv3d(dim // 2, dim, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.norm2 = norm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # In bfloat16 the gradient of this convolution corrupts memory on CPUs (PyTorch 2.13, 3 channels of 224 x 224).
        unsafe = torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
        with torch.autocast("cpu", enabled=False) if unsafe else nullcontext():
            x = conv_then_norm(_proj1, x, self.proj1, self.norm1).permute(0, 2, 3, 4, 1)  # B T 2H 2W C/2 in memory
        x = F.gelu(x).permute(0, 4, 1, 2, 3)  # GELU after the permutation is several times slower on a CPU
        return conv_then_norm(_convolve_frames, x, self.proj2, self.norm2).permute(0, 2, 3, 4, 1)


def _proj1(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolve; a single clip on the CPU as a batch of three-frame windows, to avoid PyTorch's slow convolution."""
    if torch.compiler.is_compiling() or len(x) > 1 or x.device.type != "cpu":  # exported graphs take any batch size
        return F.conv3d(x.contiguous(memory_format=torch.channels_last_3d), weight, bias, 2, 1)
    windows = F.pad(x[0], (0, 0, 0, 0, 1, 1)).unfold(1, 3, 2).permute(1, 0, 4, 2, 3)  # T 3 3 4H 4W
    windows = windows.contiguous(memory_format=torch.channels_last_3d)
    y = F.conv3d(windows, weight, bias, (1, 2, 2), (0, 1, 1))  # T C/2 1 2H 2W
    return y.transpose(0, 2)


def _convolve_frames(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Convolve each frame with a kernel of 1 x 3 x 3 and stride 2: (B, C, T, H, W) -> (B, C', T, H / 2, W / 2).

    Frames are a batch of 2D maps: on CPUs without AVX-512, gradients of 3D convolutions take up to four times as long.
    """
    frames = rearrange(x, "b c t h w -> (b t) c h w")  # channels-last in memory, so nothing is copied
    y = F.conv2d(frames, weight.squeeze(2), bias, stride=2, padding=1)
    return rearrange(y, "(b t) c h w -> b c t h w", t=x.shape[2])


class Downsample(FeatureMap, nn.Module):
    """Convolution between stages: (B, T, H, W, C) -> (B, T, H / 2, W / 2, C')."""

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(dim, out_dim, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = _convolve_frames(x.permute(0, 4, 1, 2, 3), self.proj.weight, self.proj.bias)
        return self.norm(x.permute(0, 2, 3, 4, 1))


@MODEL_REGISTRY.register(name="MorphMLP_32")  # the published name for 32 frames
@MODEL_REGISTRY.register()
class MorphMLP(MorphStages):
    """MorphMLP for video.

    Maps a float tensor of shape (B, 3, num_frames, height, width) to logits of shape (B, num_classes).

    Args:
        num_classes: Number of classes.
        num_frames: Frames of a clip.
        layers: Number of blocks of each stage.
        embed_dims: Channels of each stage.
        segment_dims: Tokens of a chunk in each stage; must divide the channels and the tokens of the stage.
        mlp_ratios: Hidden channels of the MLPs of each stage as a multiple of its channels.
        qkv_bias: Add biases to the Linear layers that mix tokens.
        drop_depth_rate: Stochastic depth of the last block; rises linearly from 0.
        sync_batchnorm: Compute batch-norm statistics over all processes.
        act_checkpoint: True, or the number of blocks of each stage, from its first, whose activations are recomputed
            in the backward pass.

    Raises:
        ConfigError: For invalid settings and, when called, for clips that do not fit them.
    """

    takes_pretrain_path = True

    def __init__(
        self,
        num_classes: int = 400,
        num_frames: int = 16,
        layers: Sequence[int] = (3, 4, 9, 3),
        embed_dims: Sequence[int] = (112, 224, 392, 784),
        segment_dims: Sequence[int] = (14, 28, 28, 49),
        mlp_ratios: Sequence[float] = (3, 3, 3, 3),
        qkv_bias: bool = True,
        drop_depth_rate: float = 0.1,
        sync_batchnorm: bool = False,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__(
            num_classes,
            Stages(layers, embed_dims, segment_dims, mlp_ratios, qkv_bias, drop_depth_rate),
            partial(Stem, sync_batchnorm=sync_batchnorm),
            Downsample,
            act_checkpoint,
            temporal=partial(TemporalFC, frames=halved(num_frames), bias=qkv_bias),
        )
        self.num_frames = num_frames
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> MorphMLP:
        """Build the network described by MODEL and MORPH for clips of DATA.NUM_FRAMES."""
        return cls(num_frames=cfg.DATA.NUM_FRAMES, **shared_arguments(cfg))

    def reset_parameters(self) -> None:
        """Initialize Linear and convolution weights from a truncated normal distribution, except in temporal layers.

        The published code keeps PyTorch's default for the convolutions, which converged more slowly on the demo clips.
        """
        init_truncated_normal(self)
        for module in self.modules():
            if isinstance(module, TemporalFC):
                module.reset_parameters()

    def adapt_pretrained(self, state: StateDict) -> StateDict:
        """Inflate the convolutions of image weights and keep this network's temporal layers; return video weights."""
        own = self.state_dict()
        if not any(_is_temporal(key) for key in state):
            state = state | {key: value for key, value in own.items() if _is_temporal(key)}
        return inflate_convolutions(state, own)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the head: (B, 3, num_frames, H, W) -> (B, C)."""
        self._check_frames(x)
        return super().features(x)

    def dense_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map: (B, 3, num_frames, height, width) -> (B, C, T, H, W)."""
        self._check_frames(x)
        return rearrange(self._tokens(x), "b t h w c -> b c t h w")

    def _check_frames(self, x: torch.Tensor) -> None:
        if halved(x.shape[2]) != halved(self.num_frames):
            raise ConfigError(
                f"DATA.NUM_FRAMES: the network is for clips of {self.num_frames} frames, not {x.shape[2]}"
            )


def _is_temporal(key: str) -> bool:
    return ".t_fc." in key or ".t_norm1." in key


def inflate_convolutions(state: StateDict, like: StateDict) -> StateDict:
    """Inflate the convolutions that have a time axis in `like`: (out, in, h, w) -> (out, in, t, h, w).

    The image kernel becomes the middle tap and the others 0, so that a video of one repeated frame gives the image's
    values at every time. (Averaging over the taps, as I3D does, fails at the borders, where padding is 0.)
    """
    inflated = dict(state)
    for key, kernel in state.items():
        if key in like and kernel.dim() == 4 and like[key].dim() == 5:
            frames = like[key].shape[2]
            inflated[key] = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
            inflated[key][:, :, frames // 2] = kernel
    return inflated


def morphmlp_s(num_frames: int = 16, num_classes: int = 400, **settings: Any) -> MorphMLP:
    """Build MorphMLP-S; `settings` are additional arguments of :class:`MorphMLP`."""
    return MorphMLP(num_classes, num_frames, **{"layers": (3, 4, 9, 3), **settings})


def morphmlp_b(num_frames: int = 16, num_classes: int = 400, **settings: Any) -> MorphMLP:
    """Build MorphMLP-B; `settings` are additional arguments of :class:`MorphMLP`."""
    return MorphMLP(num_classes, num_frames, **{"layers": (4, 6, 15, 4), "drop_depth_rate": 0.3, **settings})


class ImageStem(FeatureMap, nn.Module):
    """(B, 3, height, width) -> (B, 1, H, W, C) with a quarter of the size."""

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, sync_batchnorm: bool) -> None:
        super().__init__()
        norm = SyncBatchNorm2d if sync_batchnorm else nn.BatchNorm2d
        self.proj1 = nn.Conv2d(3, dim // 2, 3, stride=2, padding=1)
        self.norm1 = norm(dim // 2)
        self.proj2 = nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1)
        self.norm2 = norm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        convolve = partial(F.conv2d, stride=2, padding=1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = F.gelu(conv_then_norm(convolve, x, self.proj1, self.norm1))
        x = conv_then_norm(convolve, x, self.proj2, self.norm2)
        return rearrange(x, "b c h w -> b 1 h w c")


class ImageDownsample(FeatureMap, nn.Module):
    """Convolution between stages: (B, 1, H, W, C) -> (B, 1, H / 2, W / 2, C')."""

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(rearrange(x, "b 1 h w c -> b c h w"))
        return self.norm(rearrange(x, "b c h w -> b 1 h w c"))


@MODEL_REGISTRY.register()
class MorphMLPImage(MorphStages):
    """MorphMLP for images.

    Maps a float tensor of shape (B, 3, height, width) to logits of shape (B, num_classes). The arguments are those of
    :class:`MorphMLP` without the number of frames.

    Raises:
        ConfigError: For invalid settings and, when called, for images that do not fit them.
    """

    input_kind = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        layers: Sequence[int] = (3, 4, 9, 3),
        embed_dims: Sequence[int] = (112, 224, 392, 784),
        segment_dims: Sequence[int] = (14, 28, 28, 49),
        mlp_ratios: Sequence[float] = (3, 3, 3, 3),
        qkv_bias: bool = True,
        drop_depth_rate: float = 0.1,
        sync_batchnorm: bool = False,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__(
            num_classes,
            Stages(layers, embed_dims, segment_dims, mlp_ratios, qkv_bias, drop_depth_rate),
            partial(ImageStem, sync_batchnorm=sync_batchnorm),
            ImageDownsample,
            act_checkpoint,
        )
        init_truncated_normal(self)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> MorphMLPImage:
        """Build the network described by MODEL and MORPH."""
        return cls(**shared_arguments(cfg))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the head: (B, 3, H, W) -> (B, C)."""
        check_image(x)
        return super().features(x)

    def dense_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map: (B, 3, height, width) -> (B, C, H, W)."""
        check_image(x)
        return rearrange(self._tokens(x), "b 1 h w c -> b c h w")


def morphmlp_image_s(num_classes: int = 1000, **settings: Any) -> MorphMLPImage:
    """Build the image form of MorphMLP-S; `settings` are additional arguments of :class:`MorphMLPImage`."""
    return MorphMLPImage(num_classes, **{"layers": (3, 4, 9, 3), **settings})


def morphmlp_image_b(num_classes: int = 1000, **settings: Any) -> MorphMLPImage:
    """Build the image form of MorphMLP-B; `settings` are additional arguments of :class:`MorphMLPImage`."""
    return MorphMLPImage(num_classes, **{"layers": (4, 6, 15, 4), "drop_depth_rate": 0.3, **settings})
