"""EAT for images (arXiv 2105.15089), after its authors' published code (TencentYoutuResearch/BaseArchitecture-EAT).

Logits agree with the published code's for Ti, to 1e-6 of the largest; the published accuracies were not measured
here. State dicts have the published keys and shapes. The authors' code of the distilled form is not public: its
second query and head are named as DeiT names them. The local branch `dcn` (deformable) is left out.

Shapes: B images, N tokens of patch x patch pixels, C channels, Q learned queries (1, or 2 when distilled).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import CheckpointError, ConfigError
from slowfast.models.activation_checkpoint import run_blocks
from slowfast.models.inputs import IMAGES, check_image
from slowfast.models.layers import DropPath, Mlp, add_residual, init_truncated_normal
from slowfast.models.linear import Linear
from slowfast.models.pixel_order import SWEEP_IN_SWEEP, check_pixel_order, pixel_order, token_grid
from slowfast.models.published import StateDict
from slowfast.runtime.logging import get_logger

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode

EPS = 1e-6  # of every LayerNorm
STD = 0.02


class PixelSequence(nn.Module):
    """All pixels in one order, cut into tokens: (B, 3, side, side) -> (B, N, 3 x patch x patch).

    The order and its inverse are buffers because published checkpoints hold them.
    """

    def __init__(self, order: str, side: int, patch: int) -> None:
        super().__init__()
        self.side, self.patch = side, patch
        self.is_patchwise = order == SWEEP_IN_SWEEP
        index = torch.from_numpy(pixel_order(order, side, patch))
        self.register_buffer("index_flat", index.view(1, -1, 1))
        self.register_buffer("index_flat_inv", index.argsort().view(1, -1, 1))

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """One value a token at its place in the image: (B, N) -> (B, H, W).

        A value a square patch; in the orders whose tokens are no square patches, a value a pixel.
        """
        n = self.side // self.patch
        if self.is_patchwise:
            return values.unflatten(1, (n, n))
        token = self.get_buffer("index_flat_inv").flatten() // self.patch**2  # of each pixel
        return values[:, token].unflatten(1, (self.side, self.side))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, channels, n = x.shape[0], x.shape[1], self.side // self.patch
        if self.is_patchwise:  # the same without a table
            x = x.reshape(b, channels, n, self.patch, n, self.patch).permute(0, 2, 4, 1, 3, 5)  # B n n 3 p p
        else:
            x = x.flatten(2)[:, :, self.get_buffer("index_flat").flatten()]  # B 3 (N p p)
            x = x.unflatten(2, (n * n, -1)).transpose(1, 2)  # B N 3 (p p)
        return x.reshape(b, n * n, -1)


class SelfAttention(nn.Module):
    """Multi-head attention among tokens: (B, N, C) -> same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3 of B heads N C/heads
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask())
        return self.proj(x.transpose(1, 2).flatten(2))

    def _mask(self) -> torch.Tensor | None:
        """True where a token (row) may look at another (column)."""
        return None


class LocalAttention(SelfAttention):
    """Attention among tokens more than one place apart: (B, N, C) -> same.

    As published, `mask` (a buffer, because checkpoints hold it) is 0 where attention is taken away: near the token.
    """

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__(width, heads)
        place = torch.arange(tokens)
        far = (place[:, None] - place).abs() > 1
        self.register_buffer("mask", far.float()[None, None])

    def _mask(self) -> torch.Tensor:
        return self.get_buffer("mask") != 0


class LocalConv(nn.Module):
    """A Linear, then a convolution over three neighbouring tokens: (B, N, C) -> same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, width)
        self.local = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.local(self.linear(x).transpose(1, 2)).transpose(1, 2)


LOCAL_BRANCHES: dict[str, Callable[[int, int, int], nn.Module]] = {  # of width, heads, tokens
    "conv": lambda width, heads, tokens: LocalConv(width),
    "attn": lambda width, heads, tokens: nn.Sequential(OrderedDict(local=LocalAttention(width, heads, tokens))),
}


class Block(nn.Module):
    """Attention on the first half of the channels, the local branch on the second, then an MLP: (B, N, C) -> same."""

    MAP_AXES = "BNC"

    def __init__(self, width: int, heads: int, mlp_ratio: float, local: nn.Module, drop_rate: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width // 2, EPS)
        self.norm1_local = nn.LayerNorm(width // 2, EPS)
        self.attn = SelfAttention(width // 2, heads // 2)
        self.local = local
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, -1)
        first = self.drop_path(first, self.attn(self.norm1(first)))
        second = self.drop_path(second, self.local(self.norm1_local(second)))
        x = torch.cat((first, second), -1)
        return self.drop_path(x, self.mlp(self.norm2(x)))


class QueryAttention(nn.Module):
    """Queries (B, Q, C) attend to tokens (B, N, C): (B, Q, C)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.kv = Linear(width, 2 * width)
        self.q = Linear(width, width)
        self.proj = Linear(width, width)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        k, v = self.kv(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 2 of B heads N C/heads
        q = self.q(queries).unflatten(2, (self.heads, -1)).transpose(1, 2)  # B heads Q C/heads
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).flatten(2))


class ClassBlock(nn.Module):
    """Queries gather what they need from normalized tokens: (B, Q, C), (B, N, C) -> (B, Q, C)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = QueryAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio), width)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        queries = add_residual(queries, self.attn(self.norm1(queries), tokens))
        return add_residual(queries, self.mlp(self.norm2(queries)))


class EAT(nn.Module):
    """EAT for images: float (B, 3, image_size, image_size) -> logits (B, num_classes).

    distilled: a second query and head for a teacher's answers; the logits are the mean of both heads', as DeiT's
    in evaluation (arXiv 2012.12877), here in training too; `forward_heads` gives them apart.
    act_checkpoint: True, or the number of blocks, from the first, whose activations are computed again in the
    backward pass; never the class blocks, whose activations are small. Raises ConfigError for impossible settings
    and, when called, for images of another size.
    """

    TAKES = IMAGES
    HEAD: ClassVar[tuple[str, ...]] = ("head", "head_dist")
    NO_DECAY: ClassVar[tuple[str, ...]] = ("cls_token", "dist_token", "pos_embed")

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        patch_size: int = 16,
        layers: int = 12,
        class_layers: int = 2,
        width: int = 192,
        heads: int = 4,
        mlp_ratio: float = 4,
        pixel_order: str = SWEEP_IN_SWEEP,
        local: str = "conv",
        distilled: bool = False,
        drop_depth_rate: float = 0.1,
        act_checkpoint: bool | int = False,
    ) -> None:
        super().__init__()
        check_pixel_order(pixel_order, image_size, patch_size)
        check_widths(width, heads)
        self.image_size, self.patch_size, self.act_checkpoint = image_size, patch_size, act_checkpoint
        self.pixel_order = pixel_order
        tokens = (image_size // patch_size) ** 2
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.dist_token = nn.Parameter(torch.empty(1, 1, width)) if distilled else None
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width))
        self.loc_encoder = PixelSequence(pixel_order, image_size, patch_size)
        self.patch_embed = nn.Conv1d(3, width, patch_size**2, stride=patch_size**2)
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                mlp_ratio,
                LOCAL_BRANCHES[local](width // 2, heads // 2, tokens),
                drop_depth_rate * i / max(layers - 1, 1),
            )
            for i in range(layers)
        )
        self.blocks_cls = nn.ModuleList(ClassBlock(width, heads, mlp_ratio) for _ in range(class_layers))
        self.norm = nn.LayerNorm(width, EPS)
        self.head = nn.Linear(width, num_classes)
        self.head_dist = nn.Linear(width, num_classes) if distilled else None
        self.reset_parameters()

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> EAT:
        """The network of MODEL and EAT for crops of DATA.TEST_CROP_SIZE."""
        return cls(
            num_classes=cfg.MODEL.NUM_CLASSES,
            image_size=cfg.DATA.TEST_CROP_SIZE,
            patch_size=cfg.EAT.PATCH_SIZE,
            layers=cfg.EAT.LAYERS,
            class_layers=cfg.EAT.CLASS_LAYERS,
            width=cfg.EAT.EMBED_DIM,
            heads=cfg.EAT.HEADS,
            mlp_ratio=cfg.EAT.MLP_RATIO,
            pixel_order=cfg.EAT.PIXEL_ORDER,
            local=cfg.EAT.LOCAL,
            distilled=cfg.EAT.DISTILLED,
            drop_depth_rate=cfg.EAT.DROP_DEPTH_RATE,
            act_checkpoint=cfg.MODEL.ACT_CHECKPOINT,
        )

    @staticmethod
    def check_config(cfg: ConfigNode) -> None:
        """Raise ConfigError, without building, when the settings are impossible for the crops that the run feeds."""
        data = cfg.DATA
        if cfg.TRAIN.ENABLE and data.TRAIN_CROP_SIZE != data.TEST_CROP_SIZE:
            raise ConfigError(
                f"DATA.TRAIN_CROP_SIZE {data.TRAIN_CROP_SIZE} and TEST_CROP_SIZE {data.TEST_CROP_SIZE} differ, but EAT "
                "learns one embedding a position: make them equal"
            )
        check_pixel_order(cfg.EAT.PIXEL_ORDER, data.TEST_CROP_SIZE, cfg.EAT.PATCH_SIZE)
        check_widths(cfg.EAT.EMBED_DIM, cfg.EAT.HEADS)

    def reset_parameters(self) -> None:
        """Random weights, all from a truncated normal: tokens, positions, Linear and convolution weights."""
        init_truncated_normal(self, STD)
        for parameter in (self.cls_token, self.dist_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=STD)

    def adapt_start_weights(self, state: StateDict, path: Path) -> StateDict:
        """Weights for images of another size: the position embedding resized, the tables of places this network's.

        Raises CheckpointError where the file's pixels are in another order, or tokens in this order are no squares.
        """
        theirs, own = state.get("pos_embed"), self.pos_embed
        if theirs is None or theirs.dim() != 3 or theirs.shape[1] == own.shape[1]:
            return state
        side = math.isqrt(theirs.shape[1]) * self.patch_size
        order, table = self.pixel_order, state.get("loc_encoder.index_flat")
        if table is None or table.numel() != side**2:
            return state  # not this layout or patch size: whoever loads it says so
        if not torch.equal(table.flatten().cpu(), torch.from_numpy(pixel_order(order, side, self.patch_size))):
            raise CheckpointError(
                f"{path} has images of {side} x {side} pixels in another order than EAT.PIXEL_ORDER {order}; set it "
                "as these weights were trained"
            )
        resized = resize_positions(theirs, order, self.patch_size, side, self.image_size)
        get_logger().info(
            f"{path}: position embedding resized from images of {side} x {side} pixels to {self.image_size} x "
            f"{self.image_size}"
        )
        return state | dict(self.named_buffers()) | {"pos_embed": resized}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.features(x))

    def forward_heads(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The logits of each head, (B, num_classes): of the classes and, when distilled, of the teacher's."""
        return self.classify_heads(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the heads see: (B, 3, H, W) -> (B, Q x C), queries one after another."""
        check_image(x)
        if x.shape[2:] != (self.image_size, self.image_size):
            raise ConfigError(
                f"DATA.TEST_CROP_SIZE: the network is for images of {self.image_size} x {self.image_size} pixels, not "
                f"{x.shape[2]} x {x.shape[3]}"
            )
        weight = self.patch_embed.weight.flatten(1)  # C (3 p p)
        tokens = F.linear(self.loc_encoder(x), weight, self.patch_embed.bias) + self.pos_embed  # B N C
        tokens = self.norm(run_blocks(self.blocks, tokens, self.act_checkpoint))
        learned = (self.cls_token, self.dist_token)
        queries = torch.cat([token for token in learned if token is not None], 1).expand(x.shape[0], -1, -1)  # B Q C
        for block in self.blocks_cls:
            queries = block(queries, tokens)
        return queries.flatten(1)

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """One value a token at its place in the image: (B, N) -> (B, H, W)."""
        return self.loc_encoder.on_grid(values)

    def classify_heads(self, features: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, Q x C) -> each head's logits (B, num_classes)."""
        heads = [head for head in (self.head, self.head_dist) if head is not None]
        return tuple(head(part) for head, part in zip(heads, features.chunk(len(heads), 1), strict=True))

    def classify(self, features: torch.Tensor) -> torch.Tensor:
        """(B, Q x C) -> logits (B, num_classes)."""
        return torch.stack(self.classify_heads(features)).mean(0)


def check_widths(width: int, heads: int) -> None:
    """Raise ConfigError unless the heads share the channels, and half of them half the channels, equally."""
    if heads % 2 or width % heads:
        raise ConfigError(
            f"EAT.HEADS {heads}: must be even and divide EAT.EMBED_DIM {width}; half the channels have half the heads"
        )


def resize_positions(embedding: torch.Tensor, order: str, patch: int, side: int, new_side: int) -> torch.Tensor:
    """An embedding of the tokens of side x side images (1, N, C) for new_side x new_side ones (1, N', C).

    Bicubic on the grid of patches, as DeiT (arXiv 2012.12877) goes from 224 to 384 pixels. Raises CheckpointError
    where tokens in this order have no place on a grid.
    """
    before, after = (token_grid(pixel_order(order, size, patch), size, patch) for size in (side, new_side))
    if before is None or after is None:
        raise CheckpointError(
            f"EAT.PIXEL_ORDER {order}: a token is no square of pixels, so that weights for images of {side} x {side} "
            f"pixels cannot start training at {new_side}; train at DATA.TRAIN_CROP_SIZE and TEST_CROP_SIZE {side}"
        )
    grid = embedding[0, torch.from_numpy(before).argsort()].unflatten(0, (side // patch, -1))  # rows columns C
    grid = F.interpolate(grid.permute(2, 0, 1)[None], (new_side // patch,) * 2, mode="bicubic", align_corners=False)
    return grid.flatten(2).mT[:, torch.from_numpy(after)]  # 1 N' C
