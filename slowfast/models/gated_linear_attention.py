"""Bidirectional gated linear attention (GLA, arXiv 2312.06635), as in Event2Vec v2 (arXiv 2504.15371 v2).

Each head has a matrix as its state: S_i = diag(exp(g_i)) S_(i-1) + k_i v_i^T with learned g_i <= 0, and the output
q_i^T S_i / sqrt(K); once over the events in order and once, with the same weights, in reverse.

Unlike the authors' code, the output gate of the reverse direction is that of the event itself. Theirs is taken, in the
order of a whole batch, from the mirrored position, so that results depend on the other recordings of the batch.

Notation: B recordings, L events, H heads, K and V channels of the keys and values of a head, T events of a chunk.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

EPS = 1e-5  # epsilon of the norm, as published
LOW_RANK, NORMALIZER = 16, 16  # channels between the two gate projections; divisor of the logarithms of the gates
CHUNK = 16  # events whose pairs are computed at once; exponents stay in the range of float32


def gated_linear_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log_gate: torch.Tensor) -> torch.Tensor:
    """Return q_i^T S_i of each event, chunk by chunk.

    Within a chunk, exp of the sum of gates between two events is a product of a factor of each, both relative to the
    middle of the chunk; between chunks, the state is carried.

    Args:
        q: Queries (B, H, L, K), float32, already scaled.
        k: Keys (B, H, L, K), 0 for events that do not take part.
        v: Values (B, H, L, V).
        log_gate: Logarithms of the gates, (B, H, L, K), 0 for events that do not take part.

    Returns:
        float32 (B, H, L, V).
    """
    length = q.shape[2]
    q, k, v, log_gate = (
        F.pad(x, (0, 0, 0, -length % CHUNK)).unflatten(2, (-1, CHUNK)) for x in (q, k, v, log_gate)
    )  # B H N T C
    sums = log_gate.cumsum(3)
    total = sums[:, :, :, -1:]
    from_middle = sums - total / 2
    pairs = (q * from_middle.exp()) @ (k * (-from_middle).exp()).transpose(-1, -2)
    within = pairs.tril() @ v
    added = (k * (total - sums).exp()).transpose(-1, -2) @ v  # B H N K V: what each chunk adds to the state
    kept = total.exp().transpose(-1, -2)  # B H N K 1
    state, before = torch.zeros_like(added[:, :, 0]), []
    for chunk in range(added.shape[2]):
        before.append(state)
        state = kept[:, :, chunk] * state + added[:, :, chunk]
    across = (q * sums.exp()) @ torch.stack(before, 2)
    return (within + across).flatten(2, 3)[:, :, :length]


class GatedRMSNorm(nn.Module):
    """RMS norm of each head times the swish of a gate: x, gate (..., V) -> same."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, EPS) * F.silu(gate)


class BiGatedLinearAttention(nn.Module):
    """Bidirectional gated linear attention with shared weights; both directions are concatenated and projected.

    Args:
        dim: Channels of a token.
        heads: Number of heads.
        expand: Channels of all keys and of all values, relative to `dim`.
    """

    def __init__(self, dim: int, heads: int, expand: float) -> None:
        super().__init__()
        inner = int(dim * expand)
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.g_proj = (nn.Linear(dim, inner, bias=False) for _ in range(4))
        self.gk_proj = nn.Sequential(nn.Linear(dim, LOW_RANK, bias=False), nn.Linear(LOW_RANK, inner))
        self.o_proj = nn.Linear(2 * inner, dim, bias=False)
        self.g_norm_swish_gate = GatedRMSNorm(inner // heads)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the attention of tokens (B, L, C) -> same; `valid` is bool (B, L)."""
        kept = valid[:, None, :, None]
        q, k, v = (self._by_head(layer(x)) for layer in (self.q_proj, self.k_proj, self.v_proj))
        gates = F.logsigmoid(self._by_head(self.gk_proj(x)).float()) / NORMALIZER
        # Exponents need float32. Autocast does not know the meta device.
        with nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False):
            values = (q.float() * q.shape[-1] ** -0.5, k.float() * kept, v.float(), gates * kept)
            mixed = gated_linear_attention(*(torch.cat((y, y.flip(2))) for y in values))
        ahead, back = mixed.chunk(2)
        gate = self._by_head(self.g_proj(x))
        sides = [rearrange(self.g_norm_swish_gate(y, gate), "b h l v -> b l (h v)") for y in (ahead, back.flip(2))]
        return self.o_proj(torch.cat(sides, -1))

    def _by_head(self, x: torch.Tensor) -> torch.Tensor:
        return rearrange(x, "b l (h c) -> b h l c", h=self.heads)
