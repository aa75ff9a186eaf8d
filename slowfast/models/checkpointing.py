"""Activation checkpointing of blocks: keep the input of a block and recompute the rest in the backward pass.

Autograd never needs the output of the last recomputed layer. A block may therefore list its residual
branches, which are then kept and recomputed one by one: one more tensor per block, but less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from slowfast.models.layers import shared_sampler

Part = Callable[[torch.Tensor], torch.Tensor]


class BlockOfParts(nn.Module):
    """Block composed of several functions that are recomputed one by one."""

    def parts(self) -> tuple[Part, ...]:
        """Return the functions that the block applies one after another."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts():
            x = part(x)
        return x


def run_blocks(blocks: Iterable[Part], x: torch.Tensor, recompute: bool | int) -> torch.Tensor:
    """Apply blocks one after another, some of them with activation checkpointing.

    Random numbers are the same when activations are recomputed, so gradients do not depend on `recompute`.

    Args:
        blocks: The blocks.
        x: Input of the first block.
        recompute: Number of blocks, from the first, whose activations are recomputed; True for all.
    """
    for index, block in enumerate(blocks):
        wanted = recompute is True or index < recompute
        x = _recomputed(block, x) if wanted and torch.is_grad_enabled() else block(x)
    return x


def _recomputed(block: Part, x: torch.Tensor) -> torch.Tensor:
    context = _recomputation_context(block)
    for part in block.parts() if isinstance(block, BlockOfParts) else (block,):
        x = checkpoint(part, x, use_reentrant=False, context_fn=context)
    return x


def _recomputation_context(
    block: Part,
) -> Callable[[], tuple[AbstractContextManager[None], AbstractContextManager[None]]]:
    """Return contexts for the forward pass and the recomputation, which draws for the same rows of the batch."""
    if not isinstance(block, nn.Module):
        return lambda: (nullcontext(), nullcontext())
    sampler = shared_sampler(block)
    rows = sampler.batch_rows  # the context of global_batch may have ended by the time of the backward pass
    return lambda: (nullcontext(), sampler.using(rows))
