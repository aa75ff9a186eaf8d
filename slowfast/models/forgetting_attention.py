"""Bidirectional forgetting attention (FoX, arXiv 2503.02130), as in Event2Vec v3 (arXiv 2504.15371).

Each head attends with softmax(q_i . k_j / sqrt(D) + sum of f over the events between j and i), where f <= 0 is the
logarithm of a learned forget gate; once over the events up to each one and once, with the same weights, in reverse.

Notation: B recordings, L events, C channels, H heads, G heads of keys and values, D channels of a head.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

EPS = 1e-5  # epsilon of the query and key norms, as published
# Score of invalid events. Sums of forget gates stay far above it, so exp of the difference is 0.
EXCLUDED = -1e9
ALIGNMENT = 8  # fused attention kernels on GPUs need a multiple of this many channels per head


class HeadRMSNorm(nn.Module):
    """RMS norm of each head with a weight per channel: (..., H D) -> same."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        heads = x.unflatten(-1, (self.heads, -1))
        return F.rms_norm(heads, heads.shape[-1:], eps=EPS).flatten(-2) * self.weight


def causal_forgetting_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log_forget: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Return forgetting attention over each event and those before it.

    The difference of two cumulative sums of `log_forget` is a term of the query, which softmax removes, and a term of
    the key. The latter is one more channel of the keys, so that fused causal kernels compute the attention and its
    gradients in memory linear in L.

    Args:
        q: Queries (B, H, L, D), float32.
        k: Keys (B, H, L, D).
        v: Values (B, H, L, D).
        log_forget: Logarithms of the forget gates, (B, H, L).
        valid: Events to attend to, bool (B, L).

    Returns:
        Mixed values (B, H, L, D); of invalid events any finite number.
    """
    dim = q.shape[-1]
    valid = valid[:, None]
    # Sums of thousands of gates need more than float32; relative to the middle, rounding to float32 is smallest.
    sums = log_forget.masked_fill(~valid, 0.0).double().cumsum(-1)
    of_keys = (sums[..., -1:] / 2 - sums).float().masked_fill(~valid, EXCLUDED)
    extra = -(dim + 1) % ALIGNMENT if q.is_cuda else 0
    q = F.pad(F.pad(q, (0, 1), value=1.0), (0, extra))
    k = F.pad(torch.cat((k, of_keys[..., None] * dim**0.5), -1), (0, extra))
    mixed = F.scaled_dot_product_attention(q, k, F.pad(v, (0, 1 + extra)), is_causal=True, scale=dim**-0.5)
    return mixed[..., :dim]


class BiForgettingAttention(nn.Module):
    """Bidirectional forgetting attention with shared weights; both directions are concatenated and projected.

    Args:
        dim: Channels of a token.
        heads: Heads of the queries; keys and values have half as many, each used by two.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, max(heads // 2, 1)
        kv_dim = dim // heads * self.kv_heads
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, kv_dim, bias=False)
        self.v_proj = nn.Linear(dim, kv_dim, bias=False)
        self.f_proj = nn.Linear(dim, heads)
        self.o_proj = nn.Linear(2 * dim, dim, bias=False)
        self.q_norm = HeadRMSNorm(dim, heads)
        self.k_norm = HeadRMSNorm(kv_dim, self.kv_heads)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the attention of tokens (B, L, C) -> same; `valid` is bool (B, L)."""
        q = rearrange(self.q_norm(self.q_proj(x)), "b l (h d) -> b h l d", h=self.heads)
        k, v = self.k_norm(self.k_proj(x)), self.v_proj(x)
        shared = self.heads // self.kv_heads
        k, v = (repeat(y, "b l (g d) -> b (g s) l d", g=self.kv_heads, s=shared) for y in (k, v))
        gates = rearrange(F.logsigmoid(self.f_proj(x).float()), "b l h -> b h l")
        # Differences of large sums need float32. Autocast does not know the meta device.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            q, k, v = (_both_directions(y.float(), 2) for y in (q, k, v))
            mixed = causal_forgetting_attention(q, k, v, _both_directions(gates, 2), _both_directions(valid, 1))
        ahead, back = rearrange(mixed, "b h l d -> b l (h d)").chunk(2)
        return self.o_proj(torch.cat((ahead, back.flip(1)), -1))


def _both_directions(x: torch.Tensor, axis: int) -> torch.Tensor:
    """Return a batch of x and x reversed along an axis: (B, ...) -> (2 B, ...)."""
    return torch.cat((x, x.flip(axis)))
