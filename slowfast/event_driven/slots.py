"""Which rows of a table belong to which stream."""

from __future__ import annotations

from collections.abc import Hashable

import torch


def rows_of(table: torch.Tensor, slots: list[int]) -> torch.Tensor:
    """table[slots]: a view of it where the slots follow one another, else a copy."""
    first = slots[0]
    if slots == list(range(first, first + len(slots))):
        return table[first : first + len(slots)]
    return table[slots]


class Slots:
    """Gives each open stream a number, and closed streams' numbers to new ones."""

    def __init__(self) -> None:
        self.of: dict[Hashable, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.of) + len(self._free)

    def open(self, stream: Hashable) -> int:
        """The number of a new stream: the lowest one that is free."""
        slot = self._free.pop() if self._free else len(self.of)
        self.of[stream] = slot
        return slot

    def close(self, stream: Hashable) -> None:
        """Free a stream's number."""
        self._free.append(self.of.pop(stream))
        self._free.sort(reverse=True)
