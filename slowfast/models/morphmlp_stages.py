"""Stages of MorphMLP, shared by the video and the image network: spatial mixing, blocks and the forward pass.

Notation: B clips, T frames after the stem (1 for images), H x W map, C channels. A chunk has L tokens and a map
N = H W / L chunks; channels form G groups of S. In the spatial layers G = L and S = C / L.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.layers import BlockOfParts, DropPath, Mlp, Part, add_residual, check_lengths, run_blocks
from slowfast.models.linear import Linear
from slowfast.models.protocol import FeatureMap, Network

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class SpatialFC(FeatureMap, nn.Module):
    """Spatial layer of all stages except the last: (B, T, H, W, C) -> same.

    Mixes the tokens of chunks along rows, of chunks along columns, and channels, and adds up the three branches with
    weights per clip and channel.
    """

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, segment_dim: int, bias: bool) -> None:
        super().__init__()
        self.segment_dim = segment_dim
        self.mlp_h = Linear(dim, dim, bias=bias)
        self.mlp_w = Linear(dim, dim, bias=bias)
        self.mlp_c = Linear(dim, dim, bias=bias)
        self.reweight = Mlp(dim, dim // 4, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns, rows, channels = self.branch_weights(x).unbind(1)  # B C
        y = _scaled_linear(x, self.mlp_c, channels)
        y = _add_scaled(y, self._along_rows(x), rows)
        return self.proj(_add_scaled(y, self._along_columns(x), columns))

    def _along_rows(self, x: torch.Tensor) -> torch.Tensor:
        y = self.mlp_w(self._chunks(x))
        return rearrange(y, "b t h n g (l s) -> b t h (n l) (g s)", l=self.segment_dim).reshape(x.shape)

    def _along_columns(self, x: torch.Tensor) -> torch.Tensor:
        transposed = x.transpose(2, 3)  # B T W H C
        y = self.mlp_h(self._chunks(transposed))
        if y.shape[2] == x.shape[3]:  # chunks within columns: one copy instead of two
            return rearrange(y, "b t w n g (l s) -> b t (n l) w (g s)", l=self.segment_dim)
        y = rearrange(y, "b t w n g (l s) -> b t w (n l) (g s)", l=self.segment_dim)
        return y.reshape(transposed.shape).transpose(2, 3)

    def _chunks(self, x: torch.Tensor) -> torch.Tensor:
        """Cut rows into chunks, or the flattened map if L does not divide W.

        (B, T, H, W, C) -> (B, T, H, W / L, G, L S), or (B, T, 1, H W / L, G, L S).
        """
        if x.shape[3] % self.segment_dim:
            x = rearrange(x, "b t h w c -> b t 1 (h w) c")
        return rearrange(x, "b t h (n l) (g s) -> b t h n g (l s)", l=self.segment_dim, g=self.segment_dim)

    def branch_weights(self, x: torch.Tensor) -> torch.Tensor:
        """Return the softmax weights of the branches along columns, along rows and over channels, (B, 3, C).

        They depend on the mean of each branch over T, H and W; the mean of a Linear is the Linear of the mean.
        """
        x = x.mean(1, keepdim=True)  # B 1 H W C
        mean = _mean_over_tokens(self._chunks(x.transpose(2, 3)), self.mlp_h, self.segment_dim)
        mean = mean + _mean_over_tokens(self._chunks(x), self.mlp_w, self.segment_dim)
        mean = mean + self.mlp_c(x.mean((1, 2, 3)))
        return _softmax_of_branches(self.reweight(mean), mean)


class SpatialFCLast(FeatureMap, nn.Module):
    """Spatial layer of the last stage: chunks of tokens H W / L apart, and channels: (B, T, H, W, C) -> same."""

    MAP_AXES = "BTHWC"

    def __init__(self, dim: int, segment_dim: int, bias: bool) -> None:
        super().__init__()
        self.segment_dim = segment_dim
        self.mlp_c = Linear(dim, dim, bias=bias)
        self.mlp_h = Linear(dim, dim, bias=bias)
        self.reweight = Mlp(dim, dim // 4, 2 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chunks, channels = self.branch_weights(x).unbind(1)  # B C
        y = self.mlp_h(self._chunks(x))
        y = rearrange(y, "b t n g (l s) -> b t (l n) (g s)", l=self.segment_dim).reshape(x.shape)
        return self.proj(_add_scaled(_scaled_linear(x, self.mlp_c, channels), y, chunks))

    def _chunks(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, H, W, C) -> (B, T, N, G, L S)."""
        x = rearrange(x, "b t h w c -> b t (h w) c")
        return rearrange(x, "b t (l n) (g s) -> b t n g (l s)", l=self.segment_dim, g=self.segment_dim)

    def branch_weights(self, x: torch.Tensor) -> torch.Tensor:
        """Return the softmax weights of the branches over chunks and over channels, (B, 2, C)."""
        mean = _mean_over_tokens(self._chunks(x), self.mlp_h, self.segment_dim) + self.mlp_c(x.mean((1, 2, 3)))
        return _softmax_of_branches(self.reweight(mean), mean)


def _mean_over_tokens(chunks: torch.Tensor, linear: nn.Linear, segment_dim: int) -> torch.Tensor:
    """Return the mean of linear(chunks) over all tokens: (B, ..., G, L S) -> (B, C)."""
    y = linear(chunks.flatten(1, -3).mean(1))  # B G (L S)
    return rearrange(y, "b g (l s) -> b l (g s)", l=segment_dim).mean(1)


def _scaled_linear(x: torch.Tensor, linear: nn.Linear, scale: torch.Tensor) -> torch.Tensor:
    """Return linear(x) with the output channels of each clip scaled by `scale` (B, C).

    Scaling the weights costs less than scaling x.
    """
    weight = linear.weight * scale[:, :, None]  # B C C
    tokens = x.flatten(1, 3)  # B (T H W) C
    if linear.bias is None:
        return torch.bmm(tokens, weight.mT).view(x.shape)
    return torch.baddbmm((linear.bias * scale)[:, None], tokens, weight.mT).view(x.shape)


def _add_scaled(y: torch.Tensor, branch: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return y + branch with the channels of each clip scaled by `scale` (B, C); overwrites y without gradients."""
    row = scale[:, None, None, None].repeat(1, 1, 1, y.shape[3], 1)  # B 1 1 W C: longer inner loops than with C
    return torch.addcmul(y, branch, row) if torch.is_grad_enabled() else y.addcmul_(branch, row)


def _softmax_of_branches(scores: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B, C x branches) -> (B, branches, C), summing to 1, in the dtype of `like` (autocast's softmax is float32)."""
    branches = scores.shape[1] // like.shape[1]
    return scores.view(*like.shape, branches).softmax(-1).to(like.dtype).transpose(1, 2).contiguous()


class Block(FeatureMap, BlockOfParts):
    """Block that mixes time, space and channels: (B, T, H, W, C) -> same.

    As published, the spatial residual starts from x and not from the output of the temporal layer.

    Args:
        dim: Channels.
        spatial: Spatial layer.
        mlp_ratio: Hidden channels of the MLP as a multiple of ``dim``.
        drop_rate: Stochastic depth.
        temporal: Function that makes the temporal layer for a number of channels; None for images.
    """

    MAP_AXES = "BTHWC"

    def __init__(
        self,
        dim: int,
        spatial: SpatialFC | SpatialFCLast,
        mlp_ratio: float,
        drop_rate: float,
        temporal: Callable[[int], nn.Module] | None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mixes_time = temporal is not None
        if temporal is not None:
            self.t_norm1 = nn.LayerNorm(dim)
            self.t_fc = temporal(dim)
        self.fc = spatial
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)
        self.drop_path = DropPath(drop_rate)

    def parts(self) -> tuple[Part, ...]:
        return self._mix_tokens, self._mix_channels

    def _mix_tokens(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop_path.residual(x, self._mixed_tokens)

    def _mixed_tokens(self, x: torch.Tensor) -> torch.Tensor:
        mixed_in_time = add_residual(x, self.t_fc(self.t_norm1(x))) if self.mixes_time else x
        return self.fc(self.norm1(mixed_in_time))

    def _mix_channels(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop_path.residual(x, lambda kept: self.mlp(self.norm2(kept)))


@dataclass(frozen=True)
class Stages:
    """Settings of all stages, see the arguments of MorphMLP. Raises ConfigError if they are invalid."""

    layers: Sequence[int]
    embed_dims: Sequence[int]
    segment_dims: Sequence[int]
    mlp_ratios: Sequence[float]
    qkv_bias: bool
    drop_depth_rate: float

    def __post_init__(self) -> None:
        check_stages(self.layers, self.embed_dims, self.segment_dims, self.mlp_ratios)

    def blocks(self, temporal: Callable[[int], nn.Module] | None) -> Iterator[nn.ModuleList]:
        """Yield the blocks of each stage; stochastic depth rises linearly over all blocks."""
        total = sum(self.layers)
        rates = (self.drop_depth_rate * i / max(total - 1, 1) for i in range(total))
        sizes = zip(self.layers, self.embed_dims, self.segment_dims, self.mlp_ratios, strict=True)
        for stage, (depth, dim, segment_dim, ratio) in enumerate(sizes):
            spatial = SpatialFC if stage < len(self.layers) - 1 else SpatialFCLast
            yield nn.ModuleList(
                Block(dim, spatial(dim, segment_dim, self.qkv_bias), ratio, next(rates), temporal) for _ in range(depth)
            )


class MorphStages(Network):
    """Stages and head of MorphMLP; the two forms differ in the layers before a stage and in the temporal layers.

    Args:
        num_classes: Number of classes.
        stages: Settings of the stages.
        stem: Function that makes the layer before the first stage for its number of channels.
        downsample: Function that makes the layer before another stage for the channels before and in the stage.
        act_checkpoint: See the arguments of :class:`~slowfast.models.morphmlp.MorphMLP`.
        temporal: Function that makes the temporal layer for a number of channels; None for images.
    """

    def __init__(
        self,
        num_classes: int,
        stages: Stages,
        stem: Callable[[int], nn.Module],
        downsample: Callable[[int, int], nn.Module],
        act_checkpoint: bool | int,
        temporal: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.embed_dims, self.segment_dims = tuple(stages.embed_dims), tuple(stages.segment_dims)
        self.act_checkpoint = act_checkpoint
        for stage, (dim, blocks) in enumerate(zip(self.embed_dims, stages.blocks(temporal), strict=True)):
            entry = downsample(self.embed_dims[stage - 1], dim) if stage else stem(dim)
            self.add_module(f"patch_embed{stage + 1}", entry)
            self.add_module(f"blocks{stage + 1}", blocks)
        self.norm = nn.LayerNorm(self.embed_dims[-1])
        self.head = nn.Linear(self.embed_dims[-1], num_classes)

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building the network, for settings that are invalid for the run's crops."""
        morph = cfg.MORPH
        check_stages(morph.LAYERS, morph.EMBED_DIMS, morph.SEGMENT_DIM, morph.MLP_RATIOS)
        for side in {cfg.DATA.TEST_CROP_SIZE} | ({cfg.DATA.TRAIN_CROP_SIZE} if cfg.TRAIN.ENABLE else set()):
            for stage in range(len(morph.LAYERS)):
                side = halved(halved(side)) if stage == 0 else halved(side)
                check_map(stage, side, side, morph.SEGMENT_DIM[stage], morph.EMBED_DIMS[stage])

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the head, the mean of all tokens: (B, C)."""
        return self._tokens(x).mean((1, 2, 3))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.head(features)

    def _tokens(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalized tokens of the last stage, (B, T, H, W, C)."""
        for stage, (segment_dim, dim) in enumerate(zip(self.segment_dims, self.embed_dims, strict=True)):
            x = self.get_submodule(f"patch_embed{stage + 1}")(x)  # B T H W C
            check_map(stage, x.shape[2], x.shape[3], segment_dim, dim)
            x = run_blocks(self.get_submodule(f"blocks{stage + 1}").children(), x, self.act_checkpoint)
        return self.norm(x)


def shared_arguments(cfg: ConfigNode) -> dict[str, Any]:
    """Return the constructor arguments that both forms take from MODEL, MORPH and BN."""
    return {
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "layers": cfg.MORPH.LAYERS,
        "embed_dims": cfg.MORPH.EMBED_DIMS,
        "segment_dims": cfg.MORPH.SEGMENT_DIM,
        "mlp_ratios": cfg.MORPH.MLP_RATIOS,
        "qkv_bias": cfg.MORPH.QKV_BIAS,
        "drop_depth_rate": cfg.MORPH.DROP_DEPTH_RATE,
        "sync_batchnorm": cfg.BN.NORM_TYPE == "sync_batchnorm",
        "act_checkpoint": cfg.MODEL.ACT_CHECKPOINT,
    }


def halved(size: int) -> int:
    """Return the output size of a convolution of kernel size 3, stride 2 and padding 1."""
    return (size + 1) // 2


def check_stages(
    layers: Sequence[int], embed_dims: Sequence[int], segment_dims: Sequence[int], mlp_ratios: Sequence[float]
) -> None:
    """Raise ConfigError unless there is one value per stage and the chunk length divides the channels of each stage."""
    lists = {"LAYERS": layers, "EMBED_DIMS": embed_dims, "SEGMENT_DIM": segment_dims, "MLP_RATIOS": mlp_ratios}
    check_lengths("MORPH", lists)
    for key, values in lists.items():
        if min(values) <= 0:
            raise ConfigError(f"MORPH.{key} ({list(values)}): every value must be above 0")
    if embed_dims[0] % 2:
        raise ConfigError(f"MORPH.EMBED_DIMS: the first value must be even, not {embed_dims[0]}")
    for stage, (dim, segment_dim) in enumerate(zip(embed_dims, segment_dims, strict=True), start=1):
        if dim % segment_dim:
            near = _nearest_divisor(dim, segment_dim)
            raise ConfigError(
                f"MORPH.SEGMENT_DIM: {segment_dim} does not divide the {dim} channels (MORPH.EMBED_DIMS) of stage "
                f"{stage}. The nearest value that does is {near}"
            )


def check_map(stage: int, height: int, width: int, segment_dim: int, dim: int) -> None:
    """Raise ConfigError unless the map of a stage (counted from 0) can be cut into chunks."""
    if height * width % segment_dim:
        near = _nearest_divisor(math.gcd(height * width, dim), segment_dim)
        raise ConfigError(
            f"MORPH.SEGMENT_DIM: {segment_dim} does not divide the {height}x{width} tokens of stage {stage + 1}. The "
            f"nearest value that does is {near}"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
