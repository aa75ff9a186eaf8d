"""Blocks of EAT: local and global attention, and its space-filling pixel orders."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.layers import DropPath, Mlp, add_residual
from slowfast.models.linear import Linear

SWEEP_IN_SWEEP = "sis"


def _sweep(side: int, patch: int) -> np.ndarray:
    """Row by row, each from the left."""
    return np.arange(side * side)


def _scan(side: int, patch: int) -> np.ndarray:
    """Row by row, every second one from the right."""
    rows = np.arange(side * side).reshape(side, side)
    rows[1::2] = rows[1::2, ::-1].copy()
    return rows.reshape(-1)


def _sweep_in_sweep(side: int, patch: int) -> np.ndarray:
    """Patch by patch, row by row in and across patches."""
    n = side // patch
    pixels = np.arange(side * side).reshape(n, patch, n, patch)
    return pixels.transpose(0, 2, 1, 3).reshape(-1)  # rows and columns of patches, then of pixels


def _zorder(side: int, patch: int) -> np.ndarray:
    """Morton's curve: the even bits of a place are its column, the odd ones its row."""
    place = np.arange(side * side)
    row, column = np.zeros_like(place), np.zeros_like(place)
    for bit in range(side.bit_length() - 1):
        column |= (place >> 2 * bit & 1) << bit
        row |= (place >> 2 * bit + 1 & 1) << bit
    return row * side + column


def _hilbert(side: int, patch: int) -> np.ndarray:
    """Hilbert's curve from the top left corner, in the direction of the published code's numpy-hilbert-curve.

    A curve of twice the side: the old one mirrored in its diagonal, itself twice, and mirrored in its other diagonal.
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
    """Raise ConfigError unless the order exists for an image of this side (pixels), cut into patch x patch tokens."""
    if side % patch:
        raise ConfigError(f"EAT.PATCH_SIZE {patch} does not divide the crop of {side} pixels")
    if name in POWERS_OF_TWO and side & (side - 1):
        raise ConfigError(
            f"EAT.PIXEL_ORDER {name} needs a crop whose side is a power of two, such as 256, not {side} pixels"
        )


def pixel_order(name: str, side: int, patch: int) -> np.ndarray:
    """The order of that name for a side x side image. Raises ConfigError where `check_pixel_order` does."""
    check_pixel_order(name, side, patch)
    return PIXEL_ORDERS[name](side, patch)


def token_grid(order: np.ndarray, side: int, patch: int) -> np.ndarray | None:
    """Where each token lies on the grid of patch x patch squares, row by row: int64 (N,) for an order of pixels.

    None where a token, patch x patch pixels in a row of the order, is no such square.
    """
    row, column = np.divmod(order.reshape(-1, patch * patch), side)
    place = row // patch * (side // patch) + column // patch
    return place[:, 0] if (place == place[:, :1]).all() else None


EPS = 1e-6  # of every LayerNorm


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

    def new_embedding(self, width: int) -> nn.Conv1d:
        """Return the layer that turns the pixels of a token into its embedding."""
        return nn.Conv1d(3, width, self.patch**2, stride=self.patch**2)

    def embed(self, x: torch.Tensor, embedding: nn.Module) -> torch.Tensor:
        """Return the tokens of images by a layer of `new_embedding`: (B, 3, side, side) -> (B, N, C)."""
        assert isinstance(embedding, nn.Conv1d)
        return F.linear(self(x), embedding.weight.flatten(1), embedding.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, channels, n = x.shape[0], x.shape[1], self.side // self.patch
        if self.is_patchwise:  # the same without a table
            x = x.reshape(b, channels, n, self.patch, n, self.patch).permute(0, 2, 4, 1, 3, 5)  # B n n 3 p p
        else:
            x = x.flatten(2)[:, :, self.get_buffer("index_flat").flatten()]  # B 3 (N p p)
            x = x.unflatten(2, (n * n, -1)).transpose(1, 2)  # B N 3 (p p)
        return x.reshape(b, n * n, -1)


class PatchSequence(nn.Module):
    """Square patches, embedded and then put in one order: (B, 3, side, side) -> (B, N, C)."""

    def __init__(self, order: str, side: int, patch: int) -> None:
        super().__init__()
        self.n, self.patch = side // patch, patch
        index = torch.from_numpy(pixel_order(order, self.n, 1))
        self.register_buffer("index_flat", index.view(1, -1, 1))
        self.register_buffer("index_flat_inv", index.argsort().view(1, -1, 1))

    def on_grid(self, values: torch.Tensor) -> torch.Tensor:
        """Arrange one value per token as in the image: (B, N) -> (B, H, W)."""
        return values[:, self.get_buffer("index_flat_inv").flatten()].unflatten(1, (self.n, self.n))

    def new_embedding(self, width: int) -> nn.Conv2d:
        """Return the layer that turns the pixels of a token into its embedding."""
        return nn.Conv2d(3, width, self.patch, stride=self.patch)

    def embed(self, x: torch.Tensor, embedding: nn.Module) -> torch.Tensor:
        """Return the tokens of images by a layer of `new_embedding`: (B, 3, side, side) -> (B, N, C)."""
        return embedding(x).flatten(2).mT[:, self.get_buffer("index_flat").flatten()]


# EAT.SFC_MODE -> what is put in EAT.PIXEL_ORDER: the pixels, or the patches.
SFC_MODES: dict[str, type[PixelSequence] | type[PatchSequence]] = {"first": PixelSequence, "second": PatchSequence}


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
    """Attention among neighbors: a token sees those at most ``kernel // 2`` places away. (B, N, C) -> same.

    ``mask`` is 1 where attention is removed, as in the published code, whose checkpoints hold it.
    """

    def __init__(self, width: int, heads: int, tokens: int, kernel: int) -> None:
        super().__init__(width, heads)
        place = torch.arange(tokens)
        far = (place[:, None] - place).abs() > kernel // 2
        self.register_buffer("mask", far.float()[None, None])

    def _mask(self) -> torch.Tensor:
        return self.get_buffer("mask") == 0


class LocalConv(nn.Module):
    """A Linear, then a convolution over neighboring tokens: (B, N, C) -> same."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.linear = Linear(width, width)
        self.local = nn.Conv1d(width, width, kernel, padding=kernel // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.local(self.linear(x).transpose(1, 2)).transpose(1, 2)


LOCAL_BRANCHES: dict[str, Callable[[int, int, int, int], nn.Module]] = {  # of width, heads, tokens, kernel
    "conv": lambda width, heads, tokens, kernel: LocalConv(width, kernel),
    "attn": lambda width, heads, tokens, kernel: nn.Sequential(
        OrderedDict(local=LocalAttention(width, heads, tokens, kernel))
    ),
}


@dataclass(frozen=True)
class BlockSettings:
    """What all blocks on the tokens share; see the arguments of :class:`EAT`."""

    width: int
    heads: int
    mlp_ratio: float
    tokens: int
    local: str
    local_ratio: float
    local_kernel: int

    @property
    def local_width(self) -> int:
        """Channels of the local branch."""
        return int(self.width * self.local_ratio)


class LocalBlock(nn.Module):
    """Attention on the first channels, the local branch on the others, then an MLP: (B, N, C) -> same."""

    MAP_AXES = "BNC"

    def __init__(self, settings: BlockSettings, drop_rate: float) -> None:
        super().__init__()
        width, local_width, heads = settings.width, settings.local_width, settings.heads // 2
        self.widths = (width - local_width, local_width)
        self.norm1 = nn.LayerNorm(width - local_width, EPS)
        self.norm1_local = nn.LayerNorm(local_width, EPS)
        self.attn = SelfAttention(width - local_width, heads)
        self.local = LOCAL_BRANCHES[settings.local](local_width, heads, settings.tokens, settings.local_kernel)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width, int(width * settings.mlp_ratio), width)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.split(self.widths, -1)
        first = self.drop_path(first, self.attn(self.norm1(first)))
        second = self.drop_path(second, self.local(self.norm1_local(second)))
        x = torch.cat((first, second), -1)
        return self.drop_path(x, self.mlp(self.norm2(x)))


class BaseBlock(nn.Module):
    """Attention on all channels, then an MLP: (B, N, C) -> same."""

    MAP_AXES = "BNC"

    def __init__(self, settings: BlockSettings, drop_rate: float) -> None:
        super().__init__()
        width = settings.width
        self.norm1 = nn.LayerNorm(width, EPS)
        self.attn = SelfAttention(width, settings.heads)
        self.norm2 = nn.LayerNorm(width, EPS)
        self.mlp = Mlp(width, int(width * settings.mlp_ratio), width)
        self.drop_path = DropPath(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.drop_path(x, self.attn(self.norm1(x)))
        return self.drop_path(x, self.mlp(self.norm2(x)))


# EAT.BLOCK_TYPE -> block on the tokens.
BLOCK_TYPES: dict[str, type[LocalBlock] | type[BaseBlock]] = {"base_local": LocalBlock, "base": BaseBlock}


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


def check_blocks(block_type: str, settings: BlockSettings) -> None:
    """Raise ConfigError unless the attention heads divide the channels that they work on."""
    width, heads = settings.width, settings.heads
    if width % heads:
        raise ConfigError(f"EAT.HEADS ({heads}) must divide EAT.EMBED_DIM ({width})")
    if BLOCK_TYPES[block_type] is not LocalBlock:
        return
    if heads % 2:
        raise ConfigError(f"EAT.HEADS ({heads}) must be even: half of the heads attend in each block")
    if settings.local_kernel % 2 == 0:
        raise ConfigError(f"EAT.LOCAL_KS ({settings.local_kernel}) must be odd")
    for share in (settings.local_width, width - settings.local_width):
        if share < 1 or share % (heads // 2):
            raise ConfigError(
                f"EAT.LOCAL_RATIO ({settings.local_ratio:g}) splits the {width} channels of EAT.EMBED_DIM into "
                f"{width - settings.local_width} and {settings.local_width}; half of EAT.HEADS ({heads // 2}) must "
                "divide both"
            )
