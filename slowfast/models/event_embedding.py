"""Embeddings of single events by their position on a grid and their polarity (Event2Vec, arXiv 2504.15371 v1).

State-dict keys and results follow the authors' published code. Embeddings with neighbors are computed differently,
equal up to rounding: rows are gathered once per event from a table that already holds the weighted sums of neighbors.

Notation: B recordings, L events, P polarities, h x w cells of the grid, C channels, K neighbors, R rows of a table
without the one for padding. *Index*: number of a grid cell from 0; *row*: index + 1. Events are int tensors p, y, x and
a bool tensor valid, each (B, L); p, y and x may be anything where valid is False.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from slowfast.config.defaults import check_value
from slowfast.errors import ConfigError
from slowfast.utils.private_ops import embedding_bag_weight_gradient

FEW = 2048  # up to this many rows, one copy and one matrix product are faster than one product per row


@dataclass(frozen=True)
class Neighbors:
    """Indices of table rows that are summed.

    Attributes:
        near: Rows of each sum, int64 (N, K). Row 0, for padding, gets no gradient.
        rows: Number of rows of the table, M.
    """

    near: torch.Tensor
    rows: int

    @functools.cached_property
    def starts(self) -> torch.Tensor:
        """Offset of each sum in the flattened `near`, (N,)."""
        n, k = self.near.shape
        return torch.arange(0, n * k, k, device=self.near.device)

    @functools.cached_property
    def by_row(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Sums and neighbors that use each row, both (N K,), ordered by row, and the offset of each row, (M,)."""
        taken, order = self.near.flatten().sort(stable=True)
        starts = torch.searchsorted(taken, torch.arange(self.rows, device=taken.device))
        return order // self.near.shape[1], order % self.near.shape[1], starts


def neighbor_sums(table: torch.Tensor, weights: torch.Tensor, neighbors: Neighbors) -> torch.Tensor:
    """Return sum_k weights[k] table[near[:, k]], (N, C), for a table (M, C) and weights (K,)."""
    sums: torch.Tensor = _NeighborSums.apply(table, weights, neighbors)
    return sums


class _NeighborSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: torch.Tensor, weights: torch.Tensor, neighbors: Neighbors) -> torch.Tensor:
        ctx.save_for_backward(table, weights)
        ctx.neighbors = neighbors
        near = neighbors.near
        return _bags(table, near.flatten(), weights.repeat(len(near)), neighbors.starts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        (table, weights), gradient = ctx.saved_tensors, gradients[0].contiguous()
        neighbors: Neighbors = ctx.neighbors
        sums, columns, starts = neighbors.by_row
        of_table = _bags(gradient, sums, weights.index_select(0, columns), starts)
        of_table[0] = 0
        return of_table, _of_weights(gradient, table, neighbors), None


def _of_weights(gradient: torch.Tensor, table: torch.Tensor, neighbors: Neighbors) -> torch.Tensor:
    """Return the gradient of the weights, (K,), given that of the sums, (N, C)."""
    near, (n, k) = neighbors.near, neighbors.near.shape
    if n * k <= FEW:
        return table.index_select(0, near.t().flatten()).view(k, -1) @ gradient.flatten()
    sums = torch.arange(n, device=near.device).repeat_interleave(k)
    products = embedding_bag_weight_gradient(gradient, table, near.flatten(), neighbors.starts, sums)
    return products.view(n, k).sum(0)


def _bags(table: torch.Tensor, rows: torch.Tensor, weights: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
    """Return the sums of weights x rows from each offset to the next."""
    return F.embedding_bag(rows, table.detach(), starts, mode="sum", per_sample_weights=weights)


Position = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # p, y, x


@dataclass(frozen=True)
class Grid:
    """Cells that events are scaled to."""

    polarities: int
    height: int
    width: int

    @property
    def cells(self) -> int:
        """Number of cells, P h w."""
        return self.polarities * self.height * self.width

    def index(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the index of a position."""
        return (p * self.height + y) * self.width + x

    def position(self, index: torch.Tensor) -> Position:
        """Return the position of an index."""
        return index // (self.height * self.width), index // self.width % self.height, index % self.width


class EventTable(nn.Embedding):
    """Table of R rows and, before them, one of zeros for padding, which is never trained."""

    def __init__(self, rows: int, dim: int) -> None:
        super().__init__(rows + 1, dim, padding_idx=0)
        self._neighbors: Neighbors | None = None

    def neighbors(self, near: Callable[[torch.Tensor], torch.Tensor]) -> Neighbors:
        """Return the neighbors of all rows, computed once.

        Args:
            near: Function that maps all indices, (R,), to those that are summed, (R, K); always the same.
        """
        if torch.compiler.is_compiling():
            return self._find(near)  # traced tensors must not be kept
        if self._neighbors is None or self._neighbors.near.device != self.weight.device:
            with torch.inference_mode(False):  # cached for training, too
                self._neighbors = self._find(near)
        return self._neighbors

    def _find(self, near: Callable[[torch.Tensor], torch.Tensor]) -> Neighbors:
        rows = near(torch.arange(self.num_embeddings - 1, device=self.weight.device)) + 1
        return Neighbors(F.pad(rows, (0, 0, 1, 0)), self.num_embeddings)


def table_rows(index: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the rows of a table: index + 1 where an event is valid, 0 elsewhere."""
    return torch.where(valid, index + 1, 0)


def neighbor_weights(axes: int, reach: int) -> torch.Tensor:
    """Return exp(-distance^2 / 2) of each neighbor on 1 or 2 axes: (K, 1, 1, 1), as published."""
    squares = torch.arange(-reach, reach + 1).square()
    distances = squares if axes == 1 else (squares[:, None] + squares).flatten()
    return torch.exp(-distances / 2).view(-1, 1, 1, 1)


class EventEmbedding(nn.Module):
    """Base class of embeddings: events to tokens and, for pre-training, tokens to scores of all cells."""

    grid: Grid

    @abstractmethod
    def forward(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Embed events, (B, L) each -> (B, L, C)."""

    @abstractmethod
    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the products of tokens (N, C) with the rows of all cells, (N, P h w)."""


class Naive(EventTable, EventEmbedding):
    """``naive``: one row per cell."""

    def __init__(self, grid: Grid, dim: int) -> None:
        EventTable.__init__(self, grid.cells, dim)
        self.grid = grid

    def forward(  # type: ignore[override]
        self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        return EventTable.forward(self, table_rows(self.grid.index(p, y, x), valid))

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens @ self.weight[1:].t()


class Naive2d(EventEmbedding):
    """``naive2d``: one row per polarity and y, and one per polarity and x, concatenated."""

    def __init__(self, grid: Grid, dim: int) -> None:
        super().__init__()
        self.grid = grid
        dim_y = int(grid.height / (grid.height + grid.width) * dim)
        if not 0 < dim_y < dim:
            raise ConfigError(f"EVENT2VEC.EMBED_DIM ({dim}) is too small to be divided between y and x. Increase it")
        self.embed_y = EventTable(grid.polarities * grid.height, dim_y)
        self.embed_x = EventTable(grid.polarities * grid.width, dim - dim_y)

    def forward(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        rows_y, rows_x = self.rows((p, y, x), valid)
        return torch.cat((self.embed_y(rows_y), self.embed_x(rows_x)), -1)

    def rows(self, position: Position, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of positions in the tables of y and x."""
        p, y, x = position
        return table_rows(p * self.grid.height + y, valid), table_rows(p * self.grid.width + x, valid)

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens_y, tokens_x = tokens.split([self.embed_y.embedding_dim, self.embed_x.embedding_dim], -1)
        p = self.grid.polarities
        of_y = rearrange(tokens_y @ self.embed_y.weight[1:].t(), "n (p h) -> n p h 1", p=p)
        of_x = rearrange(tokens_x @ self.embed_x.weight[1:].t(), "n (p w) -> n p 1 w", p=p)
        return rearrange(of_y + of_x, "n p h w -> n (p h w)")


class Neighbor1dNaive2d(EventEmbedding):
    """``neighbor1d-naive2d-n-k``: naive2d with weighted sums over 2n + 1 neighbors in y and in x."""

    def __init__(self, grid: Grid, dim: int, reach: int, dilation: int) -> None:
        super().__init__()
        self.grid, self.reach, self.dilation = grid, reach, dilation
        self.c_y = nn.Parameter(neighbor_weights(1, reach))
        self.c_x = nn.Parameter(neighbor_weights(1, reach))
        self.embed = Naive2d(grid, dim)

    def forward(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        rows_y, rows_x = self.embed.rows((p, y, x), valid)
        table_y = self._summed(self.embed.embed_y, self.c_y, self.grid.height)
        table_x = self._summed(self.embed.embed_x, self.c_x, self.grid.width)
        return torch.cat((F.embedding(rows_y, table_y), F.embedding(rows_x, table_x)), -1)

    def _summed(self, table: EventTable, weights: torch.Tensor, length: int) -> torch.Tensor:
        """Return the table of the sums over neighbors, which is always worthwhile because it has few rows."""

        def near(index: torch.Tensor) -> torch.Tensor:
            return (index - index % length)[:, None] + _shifted(
                index % length, self.reach, self.dilation, length
            )  # R K

        return neighbor_sums(table.weight, weights.flatten(), table.neighbors(near))

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embed.scores(tokens)


class NeighborNaive(EventEmbedding):
    """Base class of weighted sums over the rows of neighboring cells, in one table of one row per cell."""

    AXES: int

    def __init__(self, grid: Grid, dim: int, reach: int, dilation: int) -> None:
        super().__init__()
        self.grid, self.reach, self.dilation = grid, reach, dilation
        self.c = nn.Parameter(neighbor_weights(self.AXES, reach))
        self.embed = EventTable(grid.cells, dim)

    @abstractmethod
    def neighbors(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return the indices that are summed for positions (N,): (N, K)."""

    def forward(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        rows, weights = table_rows(self.grid.index(p, y, x), valid), self.c.flatten()
        every = self.embed.neighbors(lambda index: self.neighbors(*self.grid.position(index)))
        if rows.numel() >= every.rows:  # one sum per cell, however many events it has
            return F.embedding(rows, neighbor_sums(self.embed.weight, weights, every))
        near = every.near.index_select(0, rows.flatten())  # (B L) K
        sums = neighbor_sums(self.embed.weight, weights, Neighbors(near, every.rows))
        return sums.unflatten(0, rows.shape)

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens @ self.embed.weight[1:].t()


class Neighbor1dNaive(NeighborNaive):
    """``neighbor1d-naive-n-k``: 2n + 1 neighbors on the diagonal (y + i, x + i)."""

    AXES = 1

    def neighbors(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        near_y = _shifted(y, self.reach, self.dilation, self.grid.height)
        near_x = _shifted(x, self.reach, self.dilation, self.grid.width)
        return self.grid.index(p[:, None], near_y, near_x)


class Neighbor2dNaive(NeighborNaive):
    """``neighbor2d-naive-n-k``: the (2n + 1)^2 neighbors of a square, y first.

    As published, y and x are added without multiplying y by the width of the grid, so that cells of one polarity share
    rows; published weights depend on it.
    """

    AXES = 2

    def neighbors(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        near_y = _shifted(y, self.reach, self.dilation, self.grid.height)
        near_x = _shifted(x, self.reach, self.dilation, self.grid.width)
        start = p * (self.grid.height * self.grid.width)
        return start[:, None] + rearrange(near_y[:, :, None] + near_x[:, None, :], "n ky kx -> n (ky kx)")


def _shifted(at: torch.Tensor, reach: int, dilation: int, length: int) -> torch.Tensor:
    """Return each coordinate and its neighbors, clamped to [0, length): (N,) -> (N, 2 reach + 1)."""
    steps = torch.arange(-reach, reach + 1, device=at.device) * dilation
    return (at[:, None] + steps).clamp(0, length - 1)


PLAIN: dict[str, type[Naive] | type[Naive2d]] = {"naive": Naive, "naive2d": Naive2d}
WITH_NEIGHBORS: dict[str, type[Neighbor1dNaive] | type[Neighbor1dNaive2d] | type[Neighbor2dNaive]] = {
    "neighbor1d-naive": Neighbor1dNaive,
    "neighbor1d-naive2d": Neighbor1dNaive2d,
    "neighbor2d-naive": Neighbor2dNaive,
}


def build_embedding(name: str, grid: Grid, dim: int) -> EventEmbedding:
    """Build the embedding of a published name, such as neighbor1d-naive2d-2-1.

    Raises:
        ConfigError: If there is no such embedding.
    """
    if name in PLAIN:
        return PLAIN[name](grid, dim)
    check_value("EVENT2VEC.EMBED", name)
    family, reach, dilation = name.rsplit("-", 2)
    return WITH_NEIGHBORS[family](grid, dim, int(reach), int(dilation))
