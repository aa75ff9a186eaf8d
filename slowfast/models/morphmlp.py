"""MorphMLP for video (arXiv 2111.12527), after the published code of its authors (github.com/MTLab/MorphMLP).

Logits agree with the published code's for S with 16 and 32 frames and B with 16, to 1e-6 of the largest;
the published accuracies were not measured here. State dicts have the published keys and shapes.

Shapes: B clips, T frames after the stem (half of the clip's, rounded up), H x W map, C channels; a chunk has
L tokens, a map N = H W / L chunks; channels come in G groups of S. In space G = L, S = C / L; in time G is the
largest divisor of C up to T.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.activation_checkpoint import Part, run_blocks
from slowfast.models.inflate import inflate_convolutions
from slowfast.models.layers import DropPath, Mlp, add_residual, conv_then_norm, init_truncated_normal
from slowfast.models.linear import Linear
from slowfast.models.published import StateDict
from slowfast.models.sync_batchnorm import SyncBatchNorm

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class TemporalFC(nn.Module):
    """Mixes the frames of a position within each group of channels, then the channels: (B, T, H, W, C) -> same."""

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


class SpatialFC(nn.Module):
    """Mixes chunks along rows, chunks along columns, and channels, each weighed by the clip and channel.

    (B, T, H, W, C) -> same. Stages 1 to 3.
    """

    def __init__(self, width: int, chunk: int, bias: bool) -> None:
        super().__init__()
        self.chunk = chunk
        self.mlp_h = Linear(width, width, bias=bias)
        self.mlp_w = Linear(width, width, bias=bias)
        self.mlp_c = Linear(width, width, bias=bias)
        self.reweight = Mlp(width, width // 4, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        of_columns, of_rows, of_channels = self.branch_weights(x).unbind(1)  # B C
        y = _scaled_linear(x, self.mlp_c, of_channels)
        y = _add_scaled(y, _mix_chunks(self._chunks(x), self.mlp_w).reshape(x.shape), of_rows)
        return self.proj(_add_scaled(y, self._along_columns(x), of_columns))

    def _along_columns(self, x: torch.Tensor) -> torch.Tensor:
        turned = x.transpose(2, 3)  # B T W H C
        mixed = _mix_chunks(self._chunks(turned), self.mlp_h)
        if mixed.dim() == 7:  # B T W N L G S: turned back in the copy that puts L before G
            return mixed.permute(0, 1, 3, 4, 2, 5, 6).reshape(x.shape)
        return mixed.reshape(turned.shape).transpose(2, 3)

    def _chunks(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, H, W, C) -> (B, T, .., L, G, S) in the order of the given token axes.

        A view where chunks do not go over the last token axis; axes before L differ, but a Linear does not mind.
        """
        if x.shape[3] % self.chunk:
            x = x.flatten(2, 3)  # B T (H W) C
        return x.unflatten(-2, (-1, self.chunk)).unflatten(-1, (self.chunk, -1))

    def branch_weights(self, x: torch.Tensor) -> torch.Tensor:
        """Softmax weights of the columns', the rows' and the channels' branch: (B, 3, C).

        They depend on the branches' mean over T, H, W, and the mean of a Linear is the Linear of the mean.
        """
        x = x.mean(1, keepdim=True)  # B 1 H W C
        mean = _mean_of_chunks(self._chunks(x.transpose(2, 3)), self.mlp_h)
        mean = mean + _mean_of_chunks(self._chunks(x), self.mlp_w)
        mean = mean + self.mlp_c(x.mean((1, 2, 3)))
        return _softmax_of_branches(self.reweight(mean), mean)


class SpatialFCLast(nn.Module):
    """The last stage's form: chunks of tokens H W / L apart, and channels: (B, T, H, W, C) -> same."""

    def __init__(self, width: int, chunk: int, bias: bool) -> None:
        super().__init__()
        self.chunk = chunk
        self.mlp_c = Linear(width, width, bias=bias)
        self.mlp_h = Linear(width, width, bias=bias)
        self.reweight = Mlp(width, width // 4, 2 * width)
        self.proj = Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        of_chunks, of_channels = self.branch_weights(x).unbind(1)  # B C
        along_chunks = _mix_chunks(self._chunks(x), self.mlp_h).transpose(2, 3).reshape(x.shape)
        return self.proj(_add_scaled(_scaled_linear(x, self.mlp_c, of_channels), along_chunks, of_chunks))

    def _chunks(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, H, W, C) -> (B, T, N, L, G, S)."""
        b, t, h, w, _ = x.shape
        return x.reshape(b, t, self.chunk, h * w // self.chunk, self.chunk, -1).transpose(2, 3)

    def branch_weights(self, x: torch.Tensor) -> torch.Tensor:
        """Softmax weights of the chunks' and the channels' branch: (B, 2, C)."""
        mean = _mean_of_chunks(self._chunks(x), self.mlp_h) + self.mlp_c(x.mean((1, 2, 3)))
        return _softmax_of_branches(self.reweight(mean), mean)


def _mix_chunks(x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """Apply a Linear to the L tokens of a chunk within each group of channels: (..., L, G, S) -> same."""
    y = linear(x.transpose(-3, -2).flatten(-2))  # .. G (L S)
    return y.unflatten(-1, (x.shape[-3], -1)).transpose(-3, -2)


def _mean_of_chunks(x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
    """The mean over all tokens of what `_mix_chunks` would give: (B, ..., L, G, S) -> (B, C)."""
    return _mix_chunks(x.flatten(1, -4).mean(1), linear).mean(1).flatten(1)


def _scaled_linear(x: torch.Tensor, linear: nn.Linear, scale: torch.Tensor) -> torch.Tensor:
    """linear(x) with each clip's output channels times `scale` (B, C), which costs less on the weights than on x."""
    weight = linear.weight * scale[:, :, None]  # B C C
    tokens = x.flatten(1, 3)  # B (T H W) C
    if linear.bias is None:
        return torch.bmm(tokens, weight.mT).view(x.shape)
    return torch.baddbmm((linear.bias * scale)[:, None], tokens, weight.mT).view(x.shape)


def _add_scaled(y: torch.Tensor, branch: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """y + branch with each clip's channels times `scale` (B, C); over y itself where no gradient needs it."""
    row = scale[:, None, None, None].repeat(1, 1, 1, y.shape[3], 1)  # B 1 1 W C: longer inner loops than C
    return torch.addcmul(y, branch, row) if torch.is_grad_enabled() else y.addcmul_(branch, row)


def _softmax_of_branches(scores: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(B, C x branches) -> (B, branches, C), summing to 1; in the type of `like`, for autocast's sake."""
    return scores.view(*like.shape, -1).softmax(-1).to(like.dtype).transpose(1, 2).contiguous()


class Block(nn.Module):
    """Time, space and channel mixing: (B, T, H, W, C) -> same. The spatial residual starts from x, as published."""

    def __init__(
        self,
        width: int,
        frames: int,
        spatial: SpatialFC | SpatialFCLast,
        mlp_ratio: float,
        bias: bool,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.t_norm1 = nn.LayerNorm(width)
        self.t_fc = TemporalFC(width, frames, bias)
        self.fc = spatial
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._mix_channels(self._mix_tokens(x))

    def parts(self) -> tuple[Part, ...]:
        """What gradient checkpointing keeps apart."""
        return self._mix_tokens, self._mix_channels

    def _mix_tokens(self, x: torch.Tensor) -> torch.Tensor:
        mixed_in_time = add_residual(x, self.t_fc(self.t_norm1(x)))
        return self.drop_path(x, self.fc(self.norm1(mixed_in_time)))

    def _mix_channels(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop_path(x, self.mlp(self.norm2(x)))


class Stem(nn.Module):
    """(B, 3, frames, height, width) -> (B, T, H, W, C) at half the frames and a quarter of the size."""

    def __init__(self, width: int, sync_batchnorm: bool) -> None:
        super().__init__()
        norm = SyncBatchNorm if sync_batchnorm else nn.BatchNorm3d
        self.proj1 = nn.Conv3d(3, width // 2, 3, stride=2, padding=1)
        self.norm1 = norm(width // 2)
        self.proj2 = nn.Conv3d(width // 2, width, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.norm2 = norm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = conv_then_norm(_halve, x, self.proj1, self.norm1).permute(0, 2, 3, 4, 1)  # B T 2H 2W C, so in memory
        x = F.gelu(x).permute(0, 4, 1, 2, 3)  # several times as slow on a CPU in the other order
        return conv_then_norm(_quarter, x, self.proj2, self.norm2).permute(0, 2, 3, 4, 1)


def _halve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """proj1. For a single clip as a batch of three-frame windows: else PyTorch takes its slow CPU convolution."""
    if len(x) > 1 or x.device.type != "cpu":
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

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(width, out, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
        self.norm = nn.LayerNorm(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x.permute(0, 4, 1, 2, 3))  # a channels-last tensor stays one: no copy
        return self.norm(x.permute(0, 2, 3, 4, 1))


class MorphMLP(nn.Module):
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
        super().__init__()
        check_stages(layers, widths, chunks, mlp_ratios)
        self.num_frames, self.chunks, self.widths = num_frames, tuple(chunks), tuple(widths)
        self.act_checkpoint = act_checkpoint
        frames = half(num_frames)
        total = sum(layers)
        rates = (drop_depth_rate * i / max(total - 1, 1) for i in range(total))
        for i, (depth, width, chunk, ratio) in enumerate(zip(layers, widths, chunks, mlp_ratios, strict=True)):
            entry = Downsample(widths[i - 1], width) if i else Stem(width, sync_batchnorm)
            spatial = SpatialFC if i < len(layers) - 1 else SpatialFCLast
            blocks = (Block(width, frames, spatial(width, chunk, bias), ratio, bias, next(rates)) for _ in range(depth))
            self.add_module(f"patch_embed{i + 1}", entry)
            self.add_module(f"blocks{i + 1}", nn.ModuleList(blocks))
        self.norm = nn.LayerNorm(widths[-1])
        self.head = nn.Linear(widths[-1], num_classes)
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> MorphMLP:
        """The network of MODEL and MORPH for clips of DATA.NUM_FRAMES."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            num_frames=cfg.DATA.NUM_FRAMES,
            layers=cfg.MORPH.LAYERS,
            widths=cfg.MORPH.EMBED_DIMS,
            chunks=cfg.MORPH.SEGMENT_DIM,
            mlp_ratios=cfg.MORPH.MLP_RATIOS,
            bias=cfg.MORPH.QKV_BIAS,
            drop_depth_rate=cfg.MORPH.DROP_DEPTH_RATE,
            sync_batchnorm=cfg.BN.NORM_TYPE == "sync_batchnorm",
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building, when the settings are impossible for the clips that the run feeds."""
        morph = cfg.MORPH
        check_stages(morph.LAYERS, morph.EMBED_DIMS, morph.SEGMENT_DIM, morph.MLP_RATIOS)
        for side in {cfg.DATA.TEST_CROP_SIZE} | ({cfg.DATA.TRAIN_CROP_SIZE} if cfg.TRAIN.ENABLE else set()):
            for stage in range(len(morph.LAYERS)):
                side = half(half(side)) if stage == 0 else half(side)
                check_map(stage, side, side, morph.SEGMENT_DIM[stage], morph.EMBED_DIMS[stage])

    def reset_parameters(self) -> None:
        """Random weights: Linear and convolution from a truncated normal, each TemporalFC at its own start."""
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

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if half(x.shape[2]) != half(self.num_frames):
            raise ConfigError(
                f"DATA.NUM_FRAMES: the network is for clips of {self.num_frames} frames, not {x.shape[2]}"
            )
        for stage, (chunk, width) in enumerate(zip(self.chunks, self.widths, strict=True)):
            x = self.get_submodule(f"patch_embed{stage + 1}")(x)  # B T H W C
            check_map(stage, x.shape[2], x.shape[3], chunk, width)
            x = run_blocks(self.get_submodule(f"blocks{stage + 1}").children(), x, self.act_checkpoint)
        return self.head(self.norm(x).mean((1, 2, 3)))


def _mixes_time(key: str) -> bool:
    return ".t_fc." in key or ".t_norm1." in key


def half(size: int) -> int:
    """What a convolution of width 3, stride 2, padding 1 leaves of a size."""
    return (size + 1) // 2


def check_stages(
    layers: Sequence[int], widths: Sequence[int], chunks: Sequence[int], mlp_ratios: Sequence[float]
) -> None:
    """Raise ConfigError unless there is one value a stage and every width can be cut into its chunk's groups."""
    lengths = {
        "LAYERS": len(layers),
        "EMBED_DIMS": len(widths),
        "SEGMENT_DIM": len(chunks),
        "MLP_RATIOS": len(mlp_ratios),
    }
    if not layers or len(set(lengths.values())) > 1:
        found = ", ".join(f"MORPH.{key} {n}" for key, n in lengths.items())
        raise ConfigError(f"{found} values: each needs one a stage")
    if min(*layers, *widths, *chunks, *mlp_ratios) <= 0:
        raise ConfigError("MORPH.LAYERS, EMBED_DIMS, SEGMENT_DIM and MLP_RATIOS must all be above 0")
    if widths[0] % 2:
        raise ConfigError(f"MORPH.EMBED_DIMS: the first width must be even, not {widths[0]}")
    for stage, (width, chunk) in enumerate(zip(widths, chunks, strict=True)):
        if width % chunk:
            near = _nearest_divisor(width, chunk)
            raise ConfigError(
                f"MORPH.SEGMENT_DIM: {chunk} does not divide the width {width} of stage {stage + 1}; {near} does"
            )


def check_map(stage: int, height: int, width: int, chunk: int, channels: int) -> None:
    """Raise ConfigError unless the stage's map can be cut into chunks. stage counts from 0."""
    if height * width % chunk:
        near = _nearest_divisor(math.gcd(height * width, channels), chunk)
        raise ConfigError(
            f"MORPH.SEGMENT_DIM: stage {stage + 1} has a map of {height}x{width}, which chunks of {chunk} do not fill; "
            f"the nearest length that does is {near}"
        )


def _nearest_divisor(number: int, wanted: int) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted))
