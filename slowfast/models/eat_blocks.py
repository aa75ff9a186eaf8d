"""Blocks of EAT: local and global attention, and its space-filling pixel orders."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.layers import DropPath, Mlp, add_residual
from slowfast.models.linear import Linear
from slowfast.models.protocol import FeatureMap

SWEEP_IN_SWEEP = "sis"


def _sweep(side: int, patch: int) -> np.ndarray:
    """Order pixels row by row, each row from the left."""
    return np.arange(side * side)


def _scan(side: int, patch: int) -> np.ndarray:
    """Order pixels row by row, every second row from the right."""
    rows = np.arange(side * side).reshape(side, side)
    rows[1::2] = rows[1::2, ::-1].copy()
    return rows.reshape(-1)


def _sweep_in_sweep(side: int, patch: int) -> np.ndarray:
    """Order pixels patch by patch, row by row inside and across patches."""
    return rearrange(np.arange(side * side), "(y py x px) -> (y x py px)", py=patch, px=patch, x=side // patch)


def _zorder(side: int, patch: int) -> np.ndarray:
    """Order pixels by Morton's curve: the even bits of a position are its column, the odd bits its row."""
    position = np.arange(side * side)
    row, column = np.zeros_like(position), np.zeros_like(position)
    for bit in range(side.bit_length() - 1):
        column |= (position >> 2 * bit & 1) << bit
        row |= (position >> 2 * bit + 1 & 1) << bit
    return row * side + column


def _hilbert(side: int, patch: int) -> np.ndarray:
    """Order pixels by Hilbert's curve from the top left corner, in the direction of numpy-hilbert-curve, as published.

    The curve of twice the side consists of four copies: one mirrored along the diagonal, two as they are, and one
    mirrored along the other diagonal.
    """
    curve = np.zeros((1, 2), np.int64)  # row, column
    size = 1
    while size < side:
        mirrored = curve[:, ::-1]
        quarters = (mirrored, curve + [size, 0], curve + [size, size], [size - 1, 2 * size - 1] - mirrored)
        curve = np.concatenate(quarters)
        size *= 2
    return curve[:, 0] * side + curve[:, 1]


PIXEL_ORDERS: dict[str, Callable[[int, int], np.ndarray]] = {
    SWEEP_IN_SWEEP: _sweep_in_sweep,
    "sweep": _sweep,
    "scan": _scan,
    "zorder": _zorder,
    "hilbert": _hilbert,
}
POWERS_OF_TWO = frozenset({"zorder", "hilbert"})


def check_pixel_order(name: str, side: int, patch: int) -> None:
    """Raise ConfigError unless the order exists for images of this side, in pixels, cut into patch x patch tokens."""
    if side % patch:
        raise ConfigError(f"EAT.PATCH_SIZE {patch} does not divide the crop of {side} pixels")
    if name in POWERS_OF_TWO and side & (side - 1):
        raise ConfigError(
            f"EAT.PIXEL_ORDER {name} needs a crop whose side is a power of two, such as 256, not {side} pixels"
        )


def pixel_order(name: str, side: int, patch: int) -> np.ndarray:
    """Return the order of the pixels of a side x side image: int64 (side^2,).

    Raises:
        ConfigError: If `check_pixel_order` does.
    """
    check_pixel_order(name, side, patch)
    return PIXEL_ORDERS[name](side, patch)


def token_grid(order: np.ndarray, side: int, patch: int) -> np.ndarray | None:
    """Return the index of each token on the grid of patches, row by row: int64 (N,).

    Args:
        order: Order of the pixels; each patch x patch pixels in it are a token.
        side: Side of the image.
        patch: Side of a patch.

    Returns:
        The indices, or None if a token is not a square patch.
    """
    row, column = np.divmod(order.reshape(-1, patch * patch), side)
    index = row // patch * (side // patch) + column // patch
    return index[:, 0] if (index == index[:, :1]).all() else None


EPS = 1e-6  # epsilon of every LayerNorm


class PixelSequence(nn.Module):
    """Pixels of an image in one order, cut into tokens: (B, 3, side, side) -> (B, N, 3 patch^2).

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
        """Arrange one value per token as in the image: (B, N) -> (B, H, W).

        H and W are in patches, or in pixels for orders whose tokens are not square patches.
        """
        n = self.side // self.patch
        if self.is_patchwise:
            return values.unflatten(1, (n, n))
        token = self.get_buffer("index_flat_inv").flatten() // self.patch**2  # token of each pixel
        return values[:, token].unflatten(1, (self.side, self.side))

    def new_embedding(self, dim: int) -> nn.Conv1d:
        """Return the layer that embeds the pixels of a token."""
        return nn.Conv1d(3, dim, self.patch**2, stride=self.patch**2)

    def embed(self, x: torch.Tensor, embedding: nn.Module) -> torch.Tensor:
        """Embed the tokens of images with a layer made by `new_embedding`: (B, 3, side, side) -> (B, N, C)."""
        assert isinstance(embedding, nn.Conv1d)
        return F.linear(self(x), embedding.weight.flatten(1), embedding.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_patchwise:  # equivalent and needs no lookup
            return rearrange(x, "b c (y py) (x px) -> b (y x) (c py px)", py=self.patch, px=self.patch)
        x = x.flatten(2)[:, :, self.get_buffer("index_flat").flatten()]  # B 3 (N p p)
        return rearrange(x, "b c (n p) -> b n (c p)", p=self.patch**2)


class PatchSequence(nn.Module):
    """Square patches, embedded and then put in one order."""

    def __init__(self, order: str, side: int, patch: int) -> None:
        super().__init__()
        self.n, self.patch = side // patch, patch
        index = torch.from_numpy(pixel_order(order, self.n, 1))
        self.register_buffer("index_flat", index.view(1, -1, 1))
        self.register_buffer("index_flat_inv", index.argsort().view(1, -1, 1))

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """Arrange one value per token as in the image: (B, N) -> (B, H, W)."""
        return values[:, self.get_buffer("index_flat_inv").flatten()].unflatten(1, (self.n, self.n))

    def new_embedding(self, dim: int) -> nn.Conv2d:
        """Return the layer that embeds the pixels of a token."""
        return nn.Conv2d(3, dim, self.patch, stride=self.patch)

    def embed(self, x: torch.Tensor, embedding: nn.Module) -> torch.Tensor:
        """Embed the tokens of images with a layer made by `new_embedding`: (B, 3, side, side) -> (B, N, C)."""
        return rearrange(embedding(x), "b c h w -> b (h w) c")[:, self.get_buffer("index_flat").flatten()]


# EAT.SFC_MODE -> elements ordered by EAT.PIXEL_ORDER: pixels or patches.
SFC_MODES: dict[str, type[PixelSequence] | type[PatchSequence]] = {"first": PixelSequence, "second": PatchSequence}


class SelfAttention(nn.Module):
    """Multi-head attention among tokens: (B, N, C) -> same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = rearrange(self.qkv(x), "b n (three heads c) -> three b heads n c", three=3, heads=self.heads)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self._mask())
        return self.proj(rearrange(x, "b heads n c -> b n (heads c)"))

    def _mask(self) -> torch.Tensor | None:
        """Return a mask that is True where a token (row) may attend to another (column)."""
        return None


class LocalAttention(SelfAttention):
    """Local attention: a token attends to tokens at most ``kernel // 2`` positions away. (B, N, C) -> same.

    ``mask`` is 1 where attention is removed, as in the published code, whose checkpoints hold it.
    """

    def __init__(self, dim: int, heads: int, tokens: int, kernel: int) -> None:
        super().__init__(dim, heads)
        position = torch.arange(tokens)
        far = (position[:, None] - position).abs() > kernel // 2
        self.register_buffer("mask", far.float()[None, None])

    def _mask(self) -> torch.Tensor:
        return self.get_buffer("mask") == 0


class LocalConv(nn.Module):
    """Linear and convolution over neighboring tokens: (B, N, C) -> same."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.linear = Linear(dim, dim)
        self.local = nn.Conv1d(dim, dim, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = rearrange(self.linear(x), "b n c -> b c n")
        return rearrange(self.local(x), "b c n -> b n c")


LOCAL_BRANCHES: dict[str, Callable[[int, int, int, int], nn.Module]] = {  # arguments: dim, heads, tokens, kernel
    "conv": lambda dim, heads, tokens, kernel: LocalConv(dim, kernel),
    "attn": lambda dim, heads, tokens, kernel: nn.Sequential(
        OrderedDict(local=LocalAttention(dim, heads, tokens, kernel))
    ),
}


@dataclass(frozen=True)
class BlockSettings:
    """Settings of all blocks on the tokens; see the arguments of :class:`~slowfast.models.eat.EAT`."""

    embed_dim: int
    heads: int
    mlp_ratio: float
    tokens: int
    local: str
    local_ratio: float
    local_ks: int

    @property
    def local_dim(self) -> int:
        """Channels of the local branch."""
        return int(self.embed_dim * self.local_ratio)


class LocalBlock(FeatureMap, nn.Module):
    """Attention on the first channels, the local branch on the others, then an MLP: (B, N, C) -> same."""

    MAP_AXES = "BNC"

    def __init__(self, settings: BlockSettings, drop_rate: float) -> None:
        super().__init__()
        dim, local_dim, heads = settings.embed_dim, settings.local_dim, settings.heads // 2
        self.dims = (dim - local_dim, local_dim)
        self.norm1 = nn.LayerNorm(dim - local_dim, EPS)
        self.norm1_local = nn.LayerNorm(local_dim, EPS)
        self.attn = SelfAttention(dim - local_dim, heads)
        self.local = LOCAL_BRANCHES[settings.local](local_dim, heads, settings.tokens, settings.local_ks)
        self.norm2 = nn.LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, int(dim * settings.mlp_ratio), dim)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.split(self.dims, -1)
        first = self.drop_path.residual(first, lambda kept: self.attn(self.norm1(kept)))
        second = self.drop_path.residual(second, lambda kept: self.local(self.norm1_local(kept)))
        x = torch.cat((first, second), -1)
        return self.drop_path.residual(x, lambda kept: self.mlp(self.norm2(kept)))


class BaseBlock(FeatureMap, nn.Module):
    """Attention on all channels, then an MLP: (B, N, C) -> same."""

    MAP_AXES = "BNC"

    def __init__(self, settings: BlockSettings, drop_rate: float) -> None:
        super().__init__()
        dim = settings.embed_dim
        self.norm1 = nn.LayerNorm(dim, EPS)
        self.attn = SelfAttention(dim, settings.heads)
        self.norm2 = nn.LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, int(dim * settings.mlp_ratio), dim)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop_path.residual(x, lambda kept: self.attn(self.norm1(kept)))
        return self.drop_path.residual(x, lambda kept: self.mlp(self.norm2(kept)))


# EAT.BLOCK_TYPE -> block on the tokens.
BLOCK_TYPES: dict[str, type[LocalBlock] | type[BaseBlock]] = {"base_local": LocalBlock, "base": BaseBlock}


class QueryAttention(nn.Module):
    """Cross-attention of queries (B, Q, C) to tokens (B, N, C): (B, Q, C)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.kv = Linear(dim, 2 * dim)
        self.q = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        k, v = rearrange(self.kv(tokens), "b n (two heads c) -> two b heads n c", two=2, heads=self.heads)
        q = rearrange(self.q(queries), "b q (heads c) -> b heads q c", heads=self.heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(rearrange(x, "b heads q c -> b q (heads c)"))


class ClassBlock(nn.Module):
    """Cross-attention of queries (B, Q, C) to normalized tokens (B, N, C), then an MLP: (B, Q, C)."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, EPS)
        self.attn = QueryAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, EPS)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim)

    def forward(self, queries: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        queries = add_residual(queries, self.attn(self.norm1(queries), tokens))
        return add_residual(queries, self.mlp(self.norm2(queries)))


def check_blocks(block_type: str, settings: BlockSettings) -> None:
    """Raise ConfigError unless the attention heads divide the channels that they work on."""
    dim, heads = settings.embed_dim, settings.heads
    if dim % heads:
        raise ConfigError(f"EAT.HEADS ({heads}) must divide EAT.EMBED_DIM ({dim})")
    if BLOCK_TYPES[block_type] is not LocalBlock:
        return
    if heads % 2:
        raise ConfigError(f"EAT.HEADS ({heads}) must be even: half of the heads attend in each block")
    if settings.local_ks % 2 == 0:
        raise ConfigError(f"EAT.LOCAL_KS ({settings.local_ks}) must be odd")
    for share in (settings.local_dim, dim - settings.local_dim):
        if share < 1 or share % (heads // 2):
            raise ConfigError(
                f"EAT.LOCAL_RATIO ({settings.local_ratio:g}) splits the {dim} channels of EAT.EMBED_DIM into "
                f"{dim - settings.local_dim} and {settings.local_dim}; half of EAT.HEADS ({heads // 2}) must divide "
                "both"
            )
