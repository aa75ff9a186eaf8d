"""Transformer encoder of Event2Vec with a class token, without computations that do not affect the result.

Layers and state-dict keys are those of ``nn.TransformerEncoder`` (post-norm, ReLU, no dropout), as in the authors'
published code. Two computations differ, both equal up to rounding:

* PyTorch's fused inference kernels (``torch._transformer_encoder_layer_fwd``) are not used: on CPUs they are slower
  than its separate operators.
* The result of the last layer is only needed for the class token. With a single query q of a head, q . (W_k s_j) =
  (W_k^T q) . s_j and sum_j a_j (W_v s_j) = W_v (sum_j a_j s_j), so keys and values of the events are not computed.

Notation: B recordings, N tokens, C channels, H heads, D channels of a head.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.models.layers import run_blocks
from slowfast.models.linear import Linear


class SelfAttention(nn.Module):
    """Multi-head self-attention with the parameters of ``nn.MultiheadAttention``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = Linear(dim, dim)
        nn.init.zeros_(self.out_proj.bias)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the attention of all tokens.

        Args:
            x: Tokens (B, N, C).
            mask: True for tokens to attend to, bool (B, N); None for all.
        """
        joint = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = rearrange(joint, "b n (three h d) -> three b h n d", three=3, h=self.heads)
        mask = None if mask is None else mask[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(rearrange(mixed, "b h n d -> b n (h d)"))

    def of_first(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the attention of the first token alone, (B, C); arguments are those of `forward`."""
        q_weight, k_weight, v_weight = self.in_proj_weight.chunk(3)
        # The bias of the keys shifts all scores of a query equally, which softmax cancels.
        q_bias, _, v_bias = self.in_proj_bias.chunk(3)
        q = rearrange(F.linear(x[:, 0], q_weight, q_bias), "b (h d) -> h b d", h=self.heads)
        queries = q @ rearrange(k_weight, "(h d) c -> h d c", h=self.heads)  # H B C
        scores = rearrange(queries, "h b c -> b h c") @ x.transpose(1, 2) * q.shape[-1] ** -0.5  # B H N
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        mean = rearrange(scores.softmax(-1).to(x.dtype) @ x, "b h c -> h b c")
        mixed = mean @ rearrange(v_weight, "(h d) c -> h c d", h=self.heads)  # H B D
        return self.out_proj(rearrange(mixed, "h b d -> b (h d)") + v_bias)


class EncoderLayer(nn.Module):
    """Layer with the parameters of ``nn.TransformerEncoderLayer``: post-norm, ReLU, no dropout."""

    def __init__(self, dim: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads)
        self.linear1, self.linear2 = Linear(dim, mlp_dim), Linear(mlp_dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return all tokens, (B, N, C) -> same; `mask` is that of :class:`SelfAttention`."""
        return self._mlp(self.norm1(x + self.self_attn(x, mask)))

    def of_first(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return the first token alone, (B, N, C) -> (B, C)."""
        return self._mlp(self.norm1(x[:, 0] + self.self_attn.of_first(x, mask)))

    def _mlp(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(x + self.linear2(self.linear1(x).relu_()))


class Encoder(nn.Module):
    """Layers and a final norm, named as in ``nn.TransformerEncoder``."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, mlp_dim) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)


class EventTransformer(nn.Module):
    """Transformer encoder with a learned class token before the events, and a Linear on that token."""

    def __init__(self, embed_dim: int, heads: int, mlp_dim: int, layers: int, num_classes: int) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.encoder = Encoder(embed_dim, heads, mlp_dim, layers)
        self.head = nn.Linear(embed_dim, num_classes)

    def class_features(self, tokens: torch.Tensor, valid: torch.Tensor, act_checkpoint: bool | int) -> torch.Tensor:
        """Return the encoded class token: (B, L, C) -> (B, C). Arguments are those of `encode`."""
        return self.encoder.norm(self._run(tokens, valid, act_checkpoint, first_only=True))

    def encode(self, tokens: torch.Tensor, valid: torch.Tensor, act_checkpoint: bool | int) -> torch.Tensor:
        """Encode all tokens, the class token first: (B, L, C) -> (B, 1 + L, C).

        Args:
            tokens: Tokens of the events.
            valid: True for events to attend to, bool (B, L).
            act_checkpoint: Whether activations are recomputed, see :func:`~slowfast.models.layers.run_blocks`.
        """
        return self.encoder.norm(self._run(tokens, valid, act_checkpoint, first_only=False))

    def _run(
        self, tokens: torch.Tensor, valid: torch.Tensor, act_checkpoint: bool | int, first_only: bool
    ) -> torch.Tensor:
        tokens = torch.cat((self.class_token.expand(len(tokens), -1, -1), tokens), 1)
        mask = None if _all_valid(valid) else F.pad(valid, (1, 0), value=True)
        blocks = [functools.partial(layer, mask=mask) for layer in self.encoder.layers]
        if first_only:
            last = self.encoder.layers[-1]
            assert isinstance(last, EncoderLayer)
            blocks[-1] = functools.partial(last.of_first, mask=mask)
        return run_blocks(blocks, tokens, act_checkpoint)


def _all_valid(valid: torch.Tensor) -> bool:
    """Return whether no event is padding, if that is known without synchronizing with a device."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return valid.device.type == "cpu" and not traced and bool(valid.all())
