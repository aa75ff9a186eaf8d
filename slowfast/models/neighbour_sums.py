"""Weighted sums over rows of a table, whose gradient is made of such sums, too: each row of it is written once.

PyTorch's own backward pass goes over a table's gradient row by row, and with `padding_idx` its forward pass is three
times as slow as without.

Shapes: M rows of a table, N sums of K neighbours each, d channels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

FEW = 2048  # rows that are gathered at once: copying them is faster than a product for each
_SUM, _NO_PADDING = 0, -1  # PyTorch's numbers for an embedding bag


@dataclass(frozen=True)
class Neighbours:
    """The rows that are summed: near (N, K) int64, of a table of M rows. Row 0, for padding, gets no gradient."""

    near: torch.Tensor
    rows: int  # M

    @functools.cached_property
    def starts(self) -> torch.Tensor:
        """Where each sum begins in the flat near (N K,): (N,)."""
        n, k = self.near.shape
        return torch.arange(0, n * k, k, device=self.near.device)

    @functools.cached_property
    def by_row(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Row by row, the sums that it is in and as which neighbour, both (N K,), and where each row's begin (M,)."""
        taken, order = self.near.flatten().sort(stable=True)
        starts = torch.searchsorted(taken, torch.arange(self.rows, device=taken.device))
        return order // self.near.shape[1], order % self.near.shape[1], starts


def neighbour_sums(table: torch.Tensor, weights: torch.Tensor, neighbours: Neighbours) -> torch.Tensor:
    """sum_k weights[k] table[near[:, k]] for a table (M, d) and weights (K,): (N, d)."""
    sums: torch.Tensor = _NeighbourSums.apply(table, weights, neighbours)
    return sums


class _NeighbourSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, weights: torch.Tensor, neighbours: Neighbours) -> torch.Tensor:
        ctx.save_for_backward(table, weights)
        ctx.neighbours = neighbours
        near = neighbours.near
        return _bags(table, near.flatten(), weights.repeat(len(near)), neighbours.starts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (table, weights), gradient = ctx.saved_tensors, gradients[0].contiguous()
        neighbours: Neighbours = ctx.neighbours
        sums, places, starts = neighbours.by_row
        of_table = _bags(gradient, sums, weights.index_select(0, places), starts)
        of_table[0] = 0
        return of_table, _of_weights(gradient, table, neighbours), None


def _of_weights(gradient: torch.Tensor, table: torch.Tensor, neighbours: Neighbours) -> torch.Tensor:
    """The weights' gradient (K,) out of that of the sums (N, d)."""
    near, (n, k) = neighbours.near, neighbours.near.shape
    if n * k <= FEW:
        return table.index_select(0, near.t().flatten()).view(k, -1) @ gradient.flatten()
    sums = torch.arange(n, device=near.device).repeat_interleave(k)
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        gradient, table, near.flatten(), neighbours.starts, sums, _SUM, _NO_PADDING
    )
    return products.view(n, k).sum(0)


def _bags(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """The sums of weights x rows from each start to the next."""
    return F.embedding_bag(rows, table.detach(), starts, mode="sum", per_sample_weights=weights)
