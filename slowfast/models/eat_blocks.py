"""Blocks of EAT: local and global attention among tokens, and attention of learned queries to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.errors import ConfigError
from slowfast.models.layers import DropPath, Mlp, add_residual
from slowfast.models.linear import Linear
from slowfast.models.protocol import FeatureMap

EPS = 1e-6  # epsilon of every LayerNorm


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
