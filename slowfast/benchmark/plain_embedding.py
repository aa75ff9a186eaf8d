"""Event2Vec's embeddings the plain way: each neighbour's rows gathered, weighted and summed, one after another.

What the network's own way is timed against, and tested against.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from slowfast.models.event_embedding import (
    EventEmbedding,
    EventTable,
    Naive,
    Naive2d,
    Neighbour1dNaive,
    Neighbour1dNaive2d,
    NeighbourNaive,
)


def plain_embedding(
    embedding: EventEmbedding, p: torch.Tensor, y: torch.Tensor, x: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """What embedding(p, y, x, valid) gives: (B, L) each -> (B, L, d)."""
    h, w = embedding.grid.height, embedding.grid.width

    def rows(table: EventTable, at: torch.Tensor) -> torch.Tensor:
        return F.embedding(torch.where(valid, at + 1, 0), table.weight, padding_idx=0)

    if isinstance(embedding, Naive):
        return rows(embedding, (p * h + y) * w + x)
    if isinstance(embedding, Naive2d):
        return torch.cat((rows(embedding.embed_y, p * h + y), rows(embedding.embed_x, p * w + x)), -1)
    if isinstance(embedding, Neighbour1dNaive2d):
        steps = _steps(embedding.reach, embedding.dilation)
        lines = [rows(embedding.embed.embed_y, p * h + (y + step).clamp(0, h - 1)) for step in steps]
        columns = [rows(embedding.embed.embed_x, p * w + (x + step).clamp(0, w - 1)) for step in steps]
        return torch.cat((_weighted(lines, embedding.c_y), _weighted(columns, embedding.c_x)), -1)
    assert isinstance(embedding, NeighbourNaive)
    steps = _steps(embedding.reach, embedding.dilation)
    if isinstance(embedding, Neighbour1dNaive):
        places = [(y + step).clamp(0, h - 1) * w + (x + step).clamp(0, w - 1) for step in steps]
    else:
        places = [(y + dy).clamp(0, h - 1) + (x + dx).clamp(0, w - 1) for dy in steps for dx in steps]
    return _weighted([rows(embedding.embed, p * (h * w) + place) for place in places], embedding.c)


def _steps(reach: int, dilation: int) -> list[int]:
    return [i * dilation for i in range(-reach, reach + 1)]


def _weighted(rows: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    total = weights[0] * rows[0]  # (1, 1, 1) x (B, L, d)
    for weight, row in zip(weights[1:], rows[1:], strict=True):
        total = total + weight * row
    return total
