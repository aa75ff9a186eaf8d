"""Gradient checkpointing of blocks: keep a block's input alone, compute the rest again in the backward pass.

The last layer of what is computed again is not: nobody needs its output. So a block may name its residual parts, to be
kept and computed again one by one, which takes one more tensor a block and less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from torch.utils.checkpoint import checkpoint

from slowfast.models.layers import batch_rows_as, current_batch_rows

Part = Callable[[torch.Tensor], torch.Tensor]


@runtime_checkable
class InParts(Protocol):
    """A block that is the composition of its parts."""

    def parts(self) -> tuple[Part, ...]:
        """The functions of one tensor that the block applies one after another."""


def run_blocks(blocks: Iterable[Part], x: torch.Tensor, recompute: bool | int) -> torch.Tensor:
    """Apply the blocks one after another, the first `recompute` of them (True: all) with checkpointing.

    Random draws repeat in the second computation, so gradients are those of a run without checkpointing.
    """
    for index, block in enumerate(blocks):
        wanted = recompute is True or index < recompute
        x = _recomputed(block, x) if wanted and torch.is_grad_enabled() else block(x)
    return x


def _recomputed(block: Part, x: torch.Tensor) -> torch.Tensor:
    rows = current_batch_rows()

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        # the training step may have left its global_batch by the time of the backward pass
        return nullcontext(), batch_rows_as(rows)

    for part in block.parts() if isinstance(block, InParts) else (block,):
        x = checkpoint(part, x, use_reentrant=False, context_fn=contexts)
    return x
