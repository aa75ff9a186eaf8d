"""Embeddings of single events by their place on a grid and their polarity (Event2Vec, arXiv 2504.15371 v1).

Facts and state-dict keys follow the authors' published code; embeddings with neighbours are computed in another way,
equal up to rounding: a table whose rows are the neighbours' weighted sums already, gathered from once an event.

Shapes: B recordings, L events, P polarities, h x w cells of the grid, d channels, K neighbours, R rows without padding.
Events are whole numbers p, y, x (B, L) and valid (B, L); where valid is False the others may be anything.
"""

from __future__ import annotations

import functools
import re
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from slowfast.errors import ConfigError
from slowfast.utils.suggest import unknown_value

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


Place = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # p, y, x


@dataclass(frozen=True)
class Grid:
    """What places there are."""

    polarities: int
    height: int
    width: int

    @property
    def places(self) -> int:
        """P h w."""
        return self.polarities * self.height * self.width

    def row(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The number of a place from 0."""
        return (p * self.height + y) * self.width + x

    def place(self, row: torch.Tensor) -> Place:
        """The place of a number."""
        return row // (self.height * self.width), row // self.width % self.height, row % self.width


class EventTable(nn.Embedding):
    """A table of R rows and, before them, one of zeros for padding, which is never trained."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__(rows + 1, width, padding_idx=0)
        self._neighbours: Neighbours | None = None

    def neighbours(self, near: Callable[[torch.Tensor], torch.Tensor]) -> Neighbours:
        """Of all rows; found once. near: of the numbers of all places (R,), always the same, those summed (R, K)."""
        if torch.compiler.is_compiling():
            return self._find(near)  # what is traced must not be kept
        if self._neighbours is None or self._neighbours.near.device != self.weight.device:
            with torch.inference_mode(False):  # kept, for training too
                self._neighbours = self._find(near)
        return self._neighbours

    def _find(self, near: Callable[[torch.Tensor], torch.Tensor]) -> Neighbours:
        rows = near(torch.arange(self.num_embeddings - 1, device=self.weight.device)) + 1
        return Neighbours(F.pad(rows, (0, 0, 1, 0)), self.num_embeddings)


def table_rows(numbers: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Rows of a table: numbers + 1 where an event is valid, 0 elsewhere."""
    return torch.where(valid, numbers + 1, 0)


def neighbour_weights(axes: int, reach: int) -> torch.Tensor:
    """exp(-distance^2 / 2) of each neighbour on `axes` axes, the last axis first: (K, 1, 1, 1), as published."""
    squares = torch.arange(-reach, reach + 1).square()
    distances = squares if axes == 1 else (squares[:, None] + squares).flatten()
    return torch.exp(-distances / 2).view(-1, 1, 1, 1)


class EventEmbedding(nn.Module):
    """Events to tokens; and, for pre-training, tokens to a score of each place."""

    grid: Grid

    @abstractmethod
    def forward(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """(B, L) each -> (B, L, d)."""

    @abstractmethod
    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        """Products of tokens (N, d) with the rows of all places: (N, P h w), places numbered as `Grid.row`."""


class Naive(EventTable, EventEmbedding):
    """`naive`: a row a place."""

    def __init__(self, grid: Grid, width: int) -> None:
        EventTable.__init__(self, grid.places, width)
        self.grid = grid

    def forward(  # type: ignore[override]
        self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        return EventTable.forward(self, table_rows(self.grid.row(p, y, x), valid))

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens @ self.weight[1:].t()


class Naive2d(EventEmbedding):
    """`naive2d`: a row a polarity and line, and one a polarity and column, side by side."""

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.grid = grid
        width_y = int(grid.height / (grid.height + grid.width) * width)
        if not 0 < width_y < width:
            raise ConfigError(f"EVENT2VEC.EMBED_DIM {width} is too small to be shared by lines and columns")
        self.embed_y = EventTable(grid.polarities * grid.height, width_y)
        self.embed_x = EventTable(grid.polarities * grid.width, width - width_y)

    def forward(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        rows_y, rows_x = self.rows((p, y, x), valid)
        return torch.cat((self.embed_y(rows_y), self.embed_x(rows_x)), -1)

    def rows(self, place: Place, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of places in both tables."""
        p, y, x = place
        return table_rows(p * self.grid.height + y, valid), table_rows(p * self.grid.width + x, valid)

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens_y, tokens_x = tokens.split([self.embed_y.embedding_dim, self.embed_x.embedding_dim], -1)
        lines = (tokens_y @ self.embed_y.weight[1:].t()).unflatten(-1, (self.grid.polarities, -1, 1))  # N P h 1
        columns = (tokens_x @ self.embed_x.weight[1:].t()).unflatten(-1, (self.grid.polarities, 1, -1))  # N P 1 w
        return (lines + columns).flatten(-3)


class Neighbour1dNaive2d(EventEmbedding):
    """`neighbor1d-naive2d-n-k`: naive2d whose lines and columns are each a weighted sum over 2n + 1 neighbours."""

    def __init__(self, grid: Grid, width: int, reach: int, dilation: int) -> None:
        super().__init__()
        self.grid, self.reach, self.dilation = grid, reach, dilation
        self.c_y = nn.Parameter(neighbour_weights(1, reach))
        self.c_x = nn.Parameter(neighbour_weights(1, reach))
        self.embed = Naive2d(grid, width)

    def forward(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        rows_y, rows_x = self.embed.rows((p, y, x), valid)
        table_y = self._summed(self.embed.embed_y, self.c_y, self.grid.height)
        table_x = self._summed(self.embed.embed_x, self.c_x, self.grid.width)
        return torch.cat((F.embedding(rows_y, table_y), F.embedding(rows_x, table_x)), -1)

    def _summed(self, table: EventTable, weights: torch.Tensor, length: int) -> torch.Tensor:
        """The table of neighbours' sums; it has few rows, so that it always pays."""

        def near(row: torch.Tensor) -> torch.Tensor:
            return (row - row % length)[:, None] + _shifted(row % length, self.reach, self.dilation, length)  # R K

        return neighbour_sums(table.weight, weights.flatten(), table.neighbours(near))

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.embed.scores(tokens)


class NeighbourNaive(EventEmbedding):
    """A weighted sum over the rows of a place's neighbours, in one table of a row a place."""

    AXES: int

    def __init__(self, grid: Grid, width: int, reach: int, dilation: int) -> None:
        super().__init__()
        self.grid, self.reach, self.dilation = grid, reach, dilation
        self.c = nn.Parameter(neighbour_weights(self.AXES, reach))
        self.embed = EventTable(grid.places, width)

    @abstractmethod
    def neighbours(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The rows that are summed for places (N,): (N, K)."""

    def forward(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        rows, weights = table_rows(self.grid.row(p, y, x), valid), self.c.flatten()
        every = self.embed.neighbours(lambda number: self.neighbours(*self.grid.place(number)))
        if rows.numel() >= every.rows:  # each place's sum once, however many events it has
            return F.embedding(rows, neighbour_sums(self.embed.weight, weights, every))
        near = every.near.index_select(0, rows.flatten())  # (B L) K
        sums = neighbour_sums(self.embed.weight, weights, Neighbours(near, every.rows))
        return sums.unflatten(0, rows.shape)

    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens @ self.embed.weight[1:].t()


class Neighbour1dNaive(NeighbourNaive):
    """`neighbor1d-naive-n-k`: 2n + 1 neighbours on the diagonal (y + i, x + i)."""

    AXES = 1

    def neighbours(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        near_y = _shifted(y, self.reach, self.dilation, self.grid.height)
        near_x = _shifted(x, self.reach, self.dilation, self.grid.width)
        return self.grid.row(p[:, None], near_y, near_x)


class Neighbour2dNaive(NeighbourNaive):
    """`neighbor2d-naive-n-k`: the (2n + 1)^2 neighbours of a square, lines outside.

    As published, lines and columns are added without multiplying lines by the grid's width, so that places of one
    polarity share rows; published weights depend on it.
    """

    AXES = 2

    def neighbours(self, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        near_y = _shifted(y, self.reach, self.dilation, self.grid.height)
        near_x = _shifted(x, self.reach, self.dilation, self.grid.width)
        start = p * (self.grid.height * self.grid.width)
        return start[:, None] + (near_y[:, :, None] + near_x[:, None, :]).flatten(1)


def _shifted(at: torch.Tensor, reach: int, dilation: int, length: int) -> torch.Tensor:
    """Each number and its neighbours, kept in [0, length): (N,) -> (N, 2 reach + 1)."""
    steps = torch.arange(-reach, reach + 1, device=at.device) * dilation
    return (at[:, None] + steps).clamp(0, length - 1)


PLAIN: dict[str, type[Naive] | type[Naive2d]] = {"naive": Naive, "naive2d": Naive2d}
WITH_NEIGHBOURS: dict[str, type[Neighbour1dNaive] | type[Neighbour1dNaive2d] | type[Neighbour2dNaive]] = {
    "neighbor1d-naive": Neighbour1dNaive,
    "neighbor1d-naive2d": Neighbour1dNaive2d,
    "neighbor2d-naive": Neighbour2dNaive,
}


def build_embedding(name: str, grid: Grid, width: int) -> EventEmbedding:
    """Build the embedding of a published name, such as neighbor1d-naive2d-2-1; ConfigError for any other."""
    if name in PLAIN:
        return PLAIN[name](grid, width)
    match = re.fullmatch(r"(.+)-([0-9]{1,2})-([1-9][0-9]{0,3})", name)
    if match is None or match[1] not in WITH_NEIGHBOURS:
        forms = [*PLAIN, *(f"{family}-n-k" for family in WITH_NEIGHBOURS)]
        raise ConfigError(
            f"{unknown_value('EVENT2VEC.EMBED', name, forms)} (n: neighbors on each side, at most 99; k: their "
            "distance, such as neighbor1d-naive2d-2-1)"
        )
    return WITH_NEIGHBOURS[match[1]](grid, width, int(match[2]), int(match[3]))
