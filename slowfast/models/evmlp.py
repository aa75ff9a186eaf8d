"""evMLP for images (arXiv 2507.01927), after its author's published code (i-evi/evMLP).

Logits agree with the published code, to 5e-6 of the largest; the published accuracies were not measured here. State
dicts have the published keys and shapes.

No patch depends on another patch of its stage, so each can be computed alone: `EvMLP.split` cuts images into the
patches of the first stage, and a stage maps patches to tokens for any leading dimensions.

Notation: B images, N patches, C channels. *Nested order*: the p x p tokens that form a patch of the next stage are
contiguous, row by row, so that (B, N, C) is (B, N / p^2, p^2 C) without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.layers import Dropout, add_residual, block_names, check_lengths, init_truncated_normal, run_blocks
from slowfast.models.linear import Linear
from slowfast.models.protocol import IMAGES, MODEL_REGISTRY, FeatureMap, Network, check_image

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


def nested_patches(x: torch.Tensor, patch_sizes: Sequence[int]) -> torch.Tensor:
    """Cut maps into the patches of the first stage: (B, C, side, side) -> (B, N, p^2 C), in nested order.

    A patch is flattened by row, column and channel.

    Args:
        x: Maps.
        patch_sizes: Side of a patch of each stage, in tokens of the stage before; their product is the map's side.
    """
    rows, columns, sizes = _axes(patch_sizes)
    nested = f"b ({_interleaved(rows[:-1], columns[:-1])}) ({rows[-1]} {columns[-1]} c)"
    return rearrange(x, f"b c ({' '.join(rows)}) ({' '.join(columns)}) -> {nested}", **sizes)


def from_nested(values: torch.Tensor, patch_sizes: Sequence[int]) -> torch.Tensor:
    """Arrange one value per patch, in nested order, as in the map: (B, N) -> (B, H, H), N = H x H.

    Args:
        values: Values of the patches of one stage.
        patch_sizes: Side of a patch of each later stage, in its own tokens; their product is H.
    """
    rows, columns, sizes = _axes(patch_sizes)
    nested = _interleaved(rows, columns)
    return rearrange(values, f"b ({nested}) -> b ({' '.join(rows)}) ({' '.join(columns)})", **sizes)


def _axes(patch_sizes: Sequence[int]) -> tuple[list[str], list[str], dict[str, int]]:
    """Return the names of the row and the column axes, outermost (last stage) first, and the lengths of all axes."""
    sizes = list(reversed(patch_sizes))
    rows, columns = ([f"{axis}{level}" for level in range(len(sizes))] for axis in ("row", "column"))
    return rows, columns, dict(zip(rows, sizes, strict=True)) | dict(zip(columns, sizes, strict=True))


def _interleaved(rows: Sequence[str], columns: Sequence[str]) -> str:
    return " ".join(f"{row} {column}" for row, column in zip(rows, columns, strict=True))


class Block(FeatureMap, nn.Module):
    """Residual channel MLP, then LayerNorm: (..., C) -> same."""

    MAP_AXES = "BNC"

    def __init__(self, dim: int, hidden_dim: int, dropout_rate: float) -> None:
        super().__init__()
        self.fn = ChannelMlp(Linear(dim, hidden_dim), nn.GELU(), Dropout(dropout_rate), Linear(hidden_dim, dim))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(add_residual(x, self.fn(x)))


class ChannelMlp(nn.Sequential):
    """Linear, exact GELU, dropout, Linear: (..., C) -> (..., C'). The GELU is fused with the Linear before it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        first, _, dropout, last = self
        assert isinstance(first, Linear)
        return last(dropout(first.gelu(input)))


class Stage(nn.Sequential):
    """Linear that embeds patches, and blocks: (..., p^2 C) -> (..., C').

    The layers are numbered from 1, as in the published code, whose layer 0 cuts the patches; that needs no layer here.
    """

    def __init__(self, dim: int, out_dim: int, blocks: int, mlp_ratio: float, dropout_rate: float) -> None:
        hidden_dim = int(out_dim * mlp_ratio)
        mix = (Block(out_dim, hidden_dim, dropout_rate) for _ in range(blocks))
        super().__init__(nn.Identity(), Linear(dim, out_dim), *mix)

    def embed(self, patches: torch.Tensor) -> torch.Tensor:
        """Embed flat patches as tokens: (..., p^2 C) -> (..., C')."""
        return self[1](patches)

    @property
    def blocks(self) -> list[nn.Module]:
        """Blocks after the embedding."""
        return list(self)[2:]


# EVMLP.INIT -> initialization; PyTorch's own needs no function.
INITS: dict[str, Callable[[nn.Module], None]] = {
    "truncated_normal": init_truncated_normal,
    "pytorch": lambda network: None,
}
_LISTS = ("EMBED_DIMS", "PATCH_SIZES", "LAYERS", "MLP_RATIOS", "DROPOUT_RATES")  # keys with one value per stage


@MODEL_REGISTRY.register(name="evMLP")
class EvMLP(Network):
    """evMLP for images.

    Maps a float tensor of shape (B, 3, side, side), where side is the product of `patch_sizes`, to logits of shape
    (B, num_classes).

    Args:
        num_classes: Number of classes.
        embed_dims: Channels of each stage.
        patch_sizes: Side of a patch of each stage: in pixels for the first, in tokens of the stage before for others.
        layers: Number of blocks of each stage.
        mlp_ratios: Hidden channels of the MLPs of each stage as a multiple of its channels.
        dropout_rates: Dropout in the MLPs of each stage.
        init: Initialization, a name in ``INITS``.
        act_checkpoint: True, or the number of blocks of each stage, from its first, whose activations are recomputed
            in the backward pass.

    Raises:
        ConfigError: For invalid settings and, when called, for images of another size.
    """

    input_kind = IMAGES

    def __init__(
        self,
        num_classes: int = 1000,
        embed_dims: Sequence[int] = (64, 128, 512, 512, 512, 512),
        patch_sizes: Sequence[int] = (7, 2, 2, 2, 2, 2),
        layers: Sequence[int] = (5, 5, 7, 7, 9, 9),
        mlp_ratios: Sequence[float] = (4, 4, 2, 2, 2, 2),
        dropout_rates: Sequence[float] = (0, 0, 0, 0, 0, 0.2),
        init: str = "truncated_normal",
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        check_lengths(
            "EVMLP", dict(zip(_LISTS, (embed_dims, patch_sizes, layers, mlp_ratios, dropout_rates), strict=True))
        )
        self.patch_sizes, self.act_checkpoint = tuple(patch_sizes), act_checkpoint
        patch_dims = [size**2 * dim for size, dim in zip(patch_sizes, (3, *embed_dims), strict=False)]
        self.blks = nn.ModuleList(
            Stage(*sizes) for sizes in zip(patch_dims, embed_dims, layers, mlp_ratios, dropout_rates, strict=True)
        )
        self.linear = nn.Linear(embed_dims[-1], num_classes)
        INITS[init](self)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EvMLP:
        """Build the network described by MODEL and EVMLP."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            embed_dims=cfg.EVMLP.EMBED_DIMS,
            patch_sizes=cfg.EVMLP.PATCH_SIZES,
            layers=cfg.EVMLP.LAYERS,
            mlp_ratios=cfg.EVMLP.MLP_RATIOS,
            dropout_rates=cfg.EVMLP.DROPOUT_RATES,
            init=cfg.EVMLP.INIT,
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building the network, for settings that are invalid for the run's crops."""
        evmlp, data = cfg.EVMLP, cfg.DATA
        check_lengths("EVMLP", {key: evmlp[key] for key in _LISTS})
        side = math.prod(evmlp.PATCH_SIZES)
        for key in ("TEST_CROP_SIZE", "TRAIN_CROP_SIZE") if cfg.TRAIN.ENABLE else ("TEST_CROP_SIZE",):
            if data[key] != side:
                raise ConfigError(f"DATA.{key} ({data[key]}) must be {side}, the product of EVMLP.PATCH_SIZES")

    def blocks_by_stage(self) -> list[list[str]]:
        """Return the names of the blocks of each stage, without the embedding before them."""
        return [block_names(f"blks.{i}", stage)[2:] for i, stage in enumerate(self.blks)]

    @property
    def side(self) -> int:
        """Side of an image in pixels."""
        return math.prod(self.patch_sizes)

    def head_names(self) -> tuple[str, ...]:
        return ("linear",)

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """Cut images (B, 3, side, side) into the patches of the first stage, (B, N, p^2 3), in nested order."""
        check_image(x)
        if x.shape[2:] != (self.side, self.side):
            raise ConfigError(
                f"EVMLP.PATCH_SIZES ({list(self.patch_sizes)}): the network is for images of {self.side} x {self.side} "
                f"pixels, not {x.shape[2]} x {x.shape[3]}"
            )
        return nested_patches(x, self.patch_sizes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input of the head: (B, 3, side, side) -> (B, C)."""
        x = self.split(x)  # B N (p p 3)
        for stage, next_size in zip(self.blks, (*self.patch_sizes[1:], 1), strict=True):
            assert isinstance(stage, Stage)
            x = run_blocks(stage.blocks, stage.embed(x), self.act_checkpoint)  # B N C
            x = x.view(x.shape[0], x.shape[1] // next_size**2, -1)  # B N' (p p C)
        return x.flatten(1)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, num_classes) of features (B, C)."""
        return self.linear(features)

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """Arrange one value per token of any stage as in the image: (B, N) -> (B, H, W)."""
        later = (self.patch_sizes[stage:] for stage in range(1, 1 + len(self.patch_sizes)))
        sizes = next(sizes for sizes in later if math.prod(sizes) ** 2 == values.shape[1])
        return from_nested(values, sizes)


def evmlp(num_classes: int = 1000, **settings: Any) -> EvMLP:
    """Build evMLP in its published size; `settings` are additional arguments of :class:`EvMLP`."""
    return EvMLP(num_classes, **settings)
