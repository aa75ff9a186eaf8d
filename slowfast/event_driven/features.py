"""The latest tokens of every patch of every stream, and their renewal where patches changed.

K frames of each of S streams; N patches of a stage (nested order), a patch of the next one is made of `merge` of them;
R changed patches among K S N. A place is a patch's number in that order; a row is its number in the table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slowfast.event_driven.detector import SLOTS, Changes, rows_of
from slowfast.event_driven.network import PatchNetwork


@dataclass(frozen=True)
class Renewed:
    """logits: float (K, S, classes); active: patches computed, int (K, S, stages)."""

    logits: torch.Tensor
    active: torch.Tensor


class PatchFeatures:
    """Tables of tokens with `counts[i]` rows a slot for stage i, and one of logits."""

    def __init__(self, network: PatchNetwork) -> None:
        self.network = network
        tokens = network.tokens_of_constant(-1)  # of a stream before its first frame
        self.start = [token.repeat(n, 1) for token, n in zip(tokens, network.counts, strict=True)]
        self.start.append(network.classify(tokens[-1][None]))
        self.tables = [rows[:0] for rows in self.start]

    def rows(self, slot: int) -> list[torch.Tensor]:
        """Views of a slot's tokens of each stage (N, C), and its logits (1, classes)."""
        sizes = (len(start) for start in self.start)
        return [table[slot * n : (slot + 1) * n] for table, n in zip(self.tables, sizes, strict=True)]

    def restore(self, slot: int, rows: list[torch.Tensor]) -> None:
        """Write what `rows` gave, or where a stream starts."""
        while (slot + 1) * len(self.start[0]) > len(self.tables[0]):
            self._grow()
        for own, given in zip(self.rows(slot), rows, strict=True):
            own.copy_(given)

    def _grow(self) -> None:
        for i, (table, start) in enumerate(zip(self.tables, self.start, strict=True)):
            added = table.new_empty(max(len(table), SLOTS * len(start)), table.shape[1])
            self.tables[i] = torch.cat((table, added))

    def renew(self, changes: Changes) -> Renewed:
        """Compute what changed, stage by stage, and what follows from it."""
        for slot in changes.starting:
            self.restore(slot, self.start)
        if len(changes.pixels):
            return self._renew(changes)
        images = changes.mask.shape[:2]
        active = torch.zeros(*images, len(self.network.stages), dtype=torch.int64, device=changes.mask.device)
        return Renewed(rows_of(self.tables[-1], changes.slots).repeat(images[0], 1, 1), active)

    def _renew(self, changes: Changes) -> Renewed:
        network, mask = self.network, changes.mask
        active = torch.empty(*mask.shape[:2], len(network.stages), dtype=torch.int64, device=mask.device)
        numbers = torch.tensor(changes.slots, device=mask.device)
        x = changes.pixels
        for i, (stage, merge) in enumerate(zip(network.stages, (*network.merges, 1), strict=True)):
            active[..., i] = mask.sum(2)
            renewal = _Renewal(self.tables[i], mask, stage(x), numbers)
            mask = mask.unflatten(2, (-1, merge)).any(3)
            x = renewal.children(mask)
            renewal.keep()
        renewal = _Renewal(self.tables[-1], mask, network.classify(x), numbers)
        logits = renewal.latest()
        renewal.keep()
        return Renewed(logits, active)


class _Renewal:
    """New rows of a table (rows of N patches a slot, C): tokens (R, C) of the patches that mask (K, S, N) marks."""

    def __init__(self, table: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor, slots: torch.Tensor) -> None:
        self.table, self.tokens, self.slots = table, tokens, slots
        self.shape = mask.shape
        places = mask.flatten().nonzero().squeeze(1)  # R
        self.one_frame = len(mask) == 1
        if self.one_frame:
            table.index_copy_(0, self._row(places, mask.shape[2]), tokens)
        else:
            self.newest = self._newest(places)

    def _newest(self, places: torch.Tensor) -> torch.Tensor:
        """The token that holds at each place, -1 where none of these frames gave one yet: (K, S, N)."""
        newest = torch.full(self.shape, -1, device=places.device)
        newest.view(-1)[places] = torch.arange(len(places), device=places.device)
        for earlier, later in zip(newest, newest[1:], strict=False):  # numbers rise with time
            torch.maximum(earlier, later, out=later)
        return newest

    def _row(self, places: torch.Tensor, patches: int) -> torch.Tensor:
        """Rows of the table (of `patches` rows a slot) for places of (K, S, patches)."""
        stream = places // patches % self.shape[1]
        return self.slots[stream] * patches + places % patches

    def children(self, mask: torch.Tensor) -> torch.Tensor:
        """What the next stage's marked patches are made of: mask (K, S, N / merge) -> (R', merge C)."""
        parents = mask.flatten().nonzero().squeeze(1)
        merge = self.shape[2] // mask.shape[2]
        if self.one_frame:
            side_by_side = self.table.view(-1, merge * self.table.shape[1])
            return side_by_side.index_select(0, self._row(parents, mask.shape[2]))
        newest = self.newest.view(-1, merge)[parents].flatten()  # (R' merge)
        x = self.tokens.index_select(0, newest.clamp_min(0))
        old = (newest < 0).nonzero().squeeze(1)
        places = parents[old // merge] * merge + old % merge
        x[old] = self.table.index_select(0, self._row(places, self.shape[2]))
        return x.view(len(parents), -1)

    def latest(self) -> torch.Tensor:
        """Every patch's row at every frame: (K, S, N, C), or (K, S, C) where N is 1."""
        table = self.table.view(-1, self.shape[2], self.table.shape[1])
        if self.one_frame:
            return table[self.slots][None].flatten(2)
        x = self.tokens[self.newest.clamp_min(0)]  # K S N C
        return torch.where(self.newest[..., None] < 0, table[self.slots], x).flatten(2)

    def keep(self) -> None:
        """Write each place's last token to the table."""
        if self.one_frame:
            return
        last = self.newest[-1].flatten()  # S N
        places = (last >= 0).nonzero().squeeze(1)
        self.table.index_copy_(0, self._row(places, self.shape[2]), self.tokens[last[places]])
