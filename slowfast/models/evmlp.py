"""evMLP for images (arXiv 2507.01927), after the published code of its author (i-evi/evMLP).

Logits agree with the published code's, to 3e-6 of the largest; the published accuracies were not measured here.
State dicts have the published keys and shapes.

No patch ever sees another of its stage, so any of them can be computed alone: `EvMLP.split` cuts images into the
first stage's patches, and a stage maps patches to tokens whatever the axes before them are.

Shapes: B images, N patches, C channels. A stage's patches are nested: the p x p tokens that make a patch of the
next stage stand next to each other, row by row, so that (B, N, C) is (B, N / p^2, p^2 C) without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.checkpointing import run_blocks
from slowfast.models.depth import block_names
from slowfast.models.inputs import IMAGES, check_image
from slowfast.models.layers import Dropout, add_residual, check_lengths, init_truncated_normal
from slowfast.models.linear import Linear

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


def nested_patches(x: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    """Cut maps into the first stage's patches: (B, C, side, side) -> (B, N, sides[0]^2 C), in nested order.

    sides: of a patch of each stage, in tokens of the stage before; their product is the map's side.
    A patch is flattened by row, column, channel.
    """
    levels = len(sides)
    outer_first = list(reversed(sides))
    x = x.reshape(x.shape[0], x.shape[1], *outer_first, *outer_first)  # B C, rows of each level, columns of each level
    order = [axis for level in range(levels) for axis in (2 + level, 2 + levels + level)]
    return x.permute(0, *order, 1).reshape(x.shape[0], math.prod(sides[1:]) ** 2, -1)


def from_nested(values: torch.Tensor, sides: Sequence[int]) -> torch.Tensor:
    """One value a patch, in nested order, at its place in the map: (B, N) -> (B, H, H), N = H x H.

    sides: of a patch of each stage after the one of `values`, in its own tokens; their product is H.
    """
    levels = len(sides)
    x = values.reshape(len(values), *(side for side in reversed(sides) for _ in range(2)))  # B, row and column a level
    rows, columns = (range(first, 1 + 2 * levels, 2) for first in (1, 2))
    return x.permute(0, *rows, *columns).reshape(len(values), math.prod(sides), -1)


class Block(nn.Module):
    """LayerNorm of x plus its MLP: (..., C) -> same."""

    MAP_AXES = "BNC"

    def __init__(self, width: int, hidden: int, dropout_rate: float) -> None:
        super().__init__()
        self.fn = ChannelMlp(Linear(width, hidden), nn.GELU(), Dropout(dropout_rate), Linear(hidden, width))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(add_residual(x, self.fn(x)))


class ChannelMlp(nn.Sequential):
    """Linear, exact GELU, dropout, Linear: (..., C) -> (..., C'). The GELU runs with the Linear before it."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        first, _, dropout, last = self
        assert isinstance(first, Linear)
        return last(dropout(first.gelu(input)))


class Stage(nn.Sequential):
    """A Linear that embeds patches, and blocks: (..., p^2 C) -> (..., C').

    The layers are numbered from 1, as published: 0 cuts the patches there, which needs no layer here.
    """

    def __init__(self, width: int, out: int, blocks: int, mlp_ratio: float, dropout_rate: float) -> None:
        hidden = int(out * mlp_ratio)
        mix = (Block(out, hidden, dropout_rate) for _ in range(blocks))
        super().__init__(nn.Identity(), Linear(width, out), *mix)

    def embed(self, patches: torch.Tensor) -> torch.Tensor:
        """Flat patches to tokens: (..., p^2 C) -> (..., C')."""
        return self[1](patches)

    @property
    def blocks(self) -> list[nn.Module]:
        """What follows the embedding."""
        return list(self)[2:]


# EVMLP.INIT -> how the weights start; PyTorch's default is what the layers come with.
INITS: dict[str, Callable[[nn.Module], None]] = {
    "truncated_normal": init_truncated_normal,
    "pytorch": lambda network: None,
}


class EvMLP(nn.Module):
    """evMLP for images: float (B, 3, side, side), side the product of patch_sides -> logits (B, num_classes).

    widths, patch_sides, layers, mlp_ratios and dropout_rates have one value a stage; a patch's side counts pixels in
    the first stage and tokens of the stage before in the others. act_checkpoint: True, or the number of blocks of
    each stage, from its first, whose activations are computed again in the backward pass instead of kept. init: how
    the weights start, a name in INITS.
    Raises ConfigError for impossible settings and, when called, for images of another size.
    """

    TAKES = IMAGES
    HEAD: ClassVar[tuple[str, ...]] = ("linear",)

    def __init__(
        self,
        num_classes: int = 1000,
        widths: Sequence[int] = (64, 128, 512, 512, 512, 512),
        patch_sides: Sequence[int] = (7, 2, 2, 2, 2, 2),
        layers: Sequence[int] = (5, 5, 7, 7, 9, 9),
        mlp_ratios: Sequence[float] = (4, 4, 2, 2, 2, 2),
        dropout_rates: Sequence[float] = (0, 0, 0, 0, 0, 0.2),
        init: str = "truncated_normal",
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        check_lengths(
            "EVMLP",
            EMBED_DIMS=widths,
            PATCH_SIZES=patch_sides,
            LAYERS=layers,
            MLP_RATIOS=mlp_ratios,
            DROPOUT_RATES=dropout_rates,
        )
        self.patch_sides, self.act_checkpoint = tuple(patch_sides), act_checkpoint
        widths_in = [side**2 * width for side, width in zip(patch_sides, (3, *widths), strict=False)]
        self.blks = nn.ModuleList(
            Stage(*sizes) for sizes in zip(widths_in, widths, layers, mlp_ratios, dropout_rates, strict=True)
        )
        self.linear = nn.Linear(widths[-1], num_classes)
        INITS[init](self)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EvMLP:
        """The network of MODEL and EVMLP."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            widths=cfg.EVMLP.EMBED_DIMS,
            patch_sides=cfg.EVMLP.PATCH_SIZES,
            layers=cfg.EVMLP.LAYERS,
            mlp_ratios=cfg.EVMLP.MLP_RATIOS,
            dropout_rates=cfg.EVMLP.DROPOUT_RATES,
            init=cfg.EVMLP.INIT,
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building, when the settings are impossible for the crops that the run feeds."""
        evmlp, data = cfg.EVMLP, cfg.DATA
        lists = ("EMBED_DIMS", "PATCH_SIZES", "LAYERS", "MLP_RATIOS", "DROPOUT_RATES")
        check_lengths("EVMLP", **{key: evmlp[key] for key in lists})
        side = math.prod(evmlp.PATCH_SIZES)
        for key in ("TEST_CROP_SIZE", "TRAIN_CROP_SIZE") if cfg.TRAIN.ENABLE else ("TEST_CROP_SIZE",):
            if data[key] != side:
                raise ConfigError(f"DATA.{key} {data[key]}: must be {side}, the product of EVMLP.PATCH_SIZES")

    def blocks_by_stage(self) -> list[list[str]]:
        """Return the names of the blocks of each stage, without the embedding before them."""
        return [block_names(f"blks.{i}", stage)[2:] for i, stage in enumerate(self.blks)]

    @property
    def side(self) -> int:
        """Pixels of an image's side."""
        return math.prod(self.patch_sides)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, side, side) to the first stage's patches (B, N, p^2 3), in nested order."""
        check_image(x)
        if x.shape[2:] != (self.side, self.side):
            raise ConfigError(
                f"EVMLP.PATCH_SIZES {list(self.patch_sides)}: the network is for images of {self.side} x {self.side} "
                f"pixels, not {x.shape[2]} x {x.shape[3]}"
            )
        return nested_patches(x, self.patch_sides)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the head sees: (B, 3, side, side) -> (B, C)."""
        x = self.split(x)  # B N (p p 3)
        for stage, next_side in zip(self.blks, (*self.patch_sides[1:], 1), strict=True):
            assert isinstance(stage, Stage)
            x = run_blocks(stage.blocks, stage.embed(x), self.act_checkpoint)  # B N C
            x = x.view(x.shape[0], x.shape[1] // next_side**2, -1)  # B N' (p p C)
        return x.flatten(1)

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """One value a token of any stage at its place in the image: (B, N) -> (B, H, W)."""
        later = (self.patch_sides[stage:] for stage in range(1, 1 + len(self.patch_sides)))
        sides = next(sides for sides in later if math.prod(sides) ** 2 == values.shape[1])
        return from_nested(values, sides)

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C) -> logits (B, num_classes)."""
        return self.linear(features)
