"""What MorphMLP's video and image forms share: mixing in space, blocks, and the run over the stages.

Shapes: B clips, T frames after the stem (1 for images), H x W map, C channels; a chunk has L tokens, a map
N = H W / L chunks; channels come in G groups of S. In space G = L, S = C / L.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.checkpointing import Part, run_blocks
from slowfast.models.layers import DropPath, Mlp, add_residual
from slowfast.models.linear import Linear

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


class SpatialFC(nn.Module):
    """Mixes chunks along rows, chunks along columns, and channels, each weighed by the clip and channel.

    (B, T, H, W, C) -> same. Stages 1 to 3.
    """

    MAP_AXES = "BTHWC"

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

    MAP_AXES = "BTHWC"

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
    """Time, space and channel mixing: (B, T, H, W, C) -> same. Without `time` it mixes space and channels alone.

    The spatial residual starts from x, not from what was mixed in time, as published.
    """

    MAP_AXES = "BTHWC"

    def __init__(
        self,
        width: int,
        spatial: SpatialFC | SpatialFCLast,
        mlp_ratio: float,
        drop_rate: float,
        time: Callable[[int], nn.Module] | None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.mixes_time = time is not None
        if time is not None:
            self.t_norm1 = nn.LayerNorm(width)
            self.t_fc = time(width)
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
        mixed_in_time = add_residual(x, self.t_fc(self.t_norm1(x))) if self.mixes_time else x
        return self.drop_path(x, self.fc(self.norm1(mixed_in_time)))

    def _mix_channels(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop_path(x, self.mlp(self.norm2(x)))


@dataclass(frozen=True)
class Stages:
    """Sizes of the stages, one value each, the branches' bias, and stochastic depth at the last block.

    Raises ConfigError for impossible ones.
    """

    layers: Sequence[int]
    widths: Sequence[int]
    chunks: Sequence[int]
    mlp_ratios: Sequence[float]
    bias: bool
    drop_depth_rate: float

    def __post_init__(self) -> None:
        check_stages(self.layers, self.widths, self.chunks, self.mlp_ratios)

    def blocks(self, time: Callable[[int], nn.Module] | None) -> Iterator[nn.ModuleList]:
        """The blocks of each stage; stochastic depth rises linearly over all of them."""
        total = sum(self.layers)
        rates = (self.drop_depth_rate * i / max(total - 1, 1) for i in range(total))
        for stage, (width, chunk, ratio) in enumerate(zip(self.widths, self.chunks, self.mlp_ratios, strict=True)):
            spatial = SpatialFC if stage < len(self.layers) - 1 else SpatialFCLast
            yield nn.ModuleList(
                Block(width, spatial(width, chunk, self.bias), ratio, next(rates), time)
                for _ in range(self.layers[stage])
            )


class MorphStages(nn.Module):
    """The stages and the head; what enters a stage, and whether its blocks mix time, is for the two forms to say.

    stem(width) and downsample(width before, width) make the layers that give a stage its (B, T, H, W, C), `time`, if
    given, a block's layer for (B, T, H, W, C) -> same. The head sees the mean over all tokens.
    """

    def __init__(
        self,
        num_classes: int,
        stages: Stages,
        stem: Callable[[int], nn.Module],
        downsample: Callable[[int, int], nn.Module],
        act_checkpoint: bool | int,
        time: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.chunks, self.widths, self.act_checkpoint = tuple(stages.chunks), tuple(stages.widths), act_checkpoint
        for stage, (width, blocks) in enumerate(zip(self.widths, stages.blocks(time), strict=True)):
            entry = downsample(self.widths[stage - 1], width) if stage else stem(width)
            self.add_module(f"patch_embed{stage + 1}", entry)
            self.add_module(f"blocks{stage + 1}", blocks)
        self.norm = nn.LayerNorm(self.widths[-1])
        self.head = nn.Linear(self.widths[-1], num_classes)

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building, when the settings are impossible for the crops that the run feeds."""
        morph = cfg.MORPH
        check_stages(morph.LAYERS, morph.EMBED_DIMS, morph.SEGMENT_DIM, morph.MLP_RATIOS)
        for side in {cfg.DATA.TEST_CROP_SIZE} | ({cfg.DATA.TRAIN_CROP_SIZE} if cfg.TRAIN.ENABLE else set()):
            for stage in range(len(morph.LAYERS)):
                side = half(half(side)) if stage == 0 else half(side)
                check_map(stage, side, side, morph.SEGMENT_DIM[stage], morph.EMBED_DIMS[stage])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: the mean of all tokens (B, C)."""
        for stage, (chunk, width) in enumerate(zip(self.chunks, self.widths, strict=True)):
            x = self.get_submodule(f"patch_embed{stage + 1}")(x)  # B T H W C
            check_map(stage, x.shape[2], x.shape[3], chunk, width)
            x = run_blocks(self.get_submodule(f"blocks{stage + 1}").children(), x, self.act_checkpoint)
        return self.norm(x).mean((1, 2, 3))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C) -> logits (B, num_classes)."""
        return self.head(features)


def shared_arguments(cfg: ConfigNode) -> dict[str, Any]:
    """The constructor arguments that both forms take from MODEL, MORPH and BN."""
    return {
        "num_classes": cfg.MODEL.NUM_CLASSES,
        "layers": cfg.MORPH.LAYERS,
        "widths": cfg.MORPH.EMBED_DIMS,
        "chunks": cfg.MORPH.SEGMENT_DIM,
        "mlp_ratios": cfg.MORPH.MLP_RATIOS,
        "bias": cfg.MORPH.QKV_BIAS,
        "drop_depth_rate": cfg.MORPH.DROP_DEPTH_RATE,
        "sync_batchnorm": cfg.BN.NORM_TYPE == "sync_batchnorm",
        "act_checkpoint": cfg.MODEL.ACT_CHECKPOINT,
    }


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
        found = ", ".join(f"MORPH.{key} has {n}" for key, n in lengths.items())
        raise ConfigError(f"{found} values. All need one per stage")
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
