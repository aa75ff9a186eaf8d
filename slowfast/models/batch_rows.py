"""Which rows of the whole training batch this process holds: draws must not depend on the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BatchRows:
    """Clips of the whole batch, and the places of this process's clips among them."""

    total: int
    rows: tuple[int, ...]


_current: BatchRows | None = None


@contextmanager
def global_batch(total: int, rows: Sequence[int]) -> Iterator[None]:
    """While this is open, the local batch stands for these rows of a batch of `total` clips."""
    with batch_rows_as(BatchRows(total, tuple(rows))):
        yield


@contextmanager
def batch_rows_as(value: BatchRows | None) -> Iterator[None]:
    """Set what `current_batch_rows` gives, and restore it at the end."""
    global _current
    before, _current = _current, value
    try:
        yield
    finally:
        _current = before


def current_batch_rows() -> BatchRows | None:
    """What the innermost open context says; None when the local batch is the whole one."""
    return _current


def draw_uniform(batch: int, *shape: int) -> torch.Tensor:
    """Numbers in [0, 1) for each clip of the local batch, float32 (batch, *shape) on the CPU.

    Drawn for the whole batch from torch's default generator, so that seeding it alike in all processes gives
    every clip the numbers it would get in a single process, on a CPU and on a GPU alike.
    """
    where = _current
    if where is None:
        return torch.rand(batch, *shape)
    if len(where.rows) != batch:
        raise ValueError(f"a batch of {batch} clips, but global_batch was given {len(where.rows)} rows")
    return torch.rand(where.total, *shape)[list(where.rows)]
