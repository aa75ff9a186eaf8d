"""Per-stream cache of patch tokens, updated only where the input changed.

Notation: K frames per stream, S streams, N patches per stage in nested order (the `merge` children of a patch are
contiguous), C token dimensions, R changed patches in total. *Patch index*: position in (K, S, N). *Row*: position in
the token table.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from slowfast.event_driven.detector import (
    INITIAL_SLOTS,
    Changes,
    rows_of,
)
from slowfast.event_driven.kernels import Kernels, Tokens
from slowfast.event_driven.network import PatchNetwork


@dataclass(frozen=True)
class Outputs:
    """Outputs of an update."""

    logits: torch.Tensor  # float (K, S, classes)
    active: torch.Tensor  # int (K, S, stages): patches computed


class PatchFeatures:
    """Token tables of all stages, with N rows per slot, and a table of logits."""

    def __init__(self, network: PatchNetwork) -> None:
        self.network = network
        tokens = network.tokens_of_constant(-1)  # tokens of a stream before its first frame
        self.initial = [token.repeat(n, 1) for token, n in zip(tokens, network.counts, strict=True)]
        self.initial.append(network.classify(tokens[-1][None]))
        self.tables = [rows[:0] for rows in self.initial]

    def rows(self, slot: int) -> list[torch.Tensor]:
        """Return views of a slot's tokens (N, C) of each stage and of its logits (1, classes)."""
        sizes = (len(rows) for rows in self.initial)
        return [table[slot * n : (slot + 1) * n] for table, n in zip(self.tables, sizes, strict=True)]

    def restore(self, slot: int, rows: list[torch.Tensor]) -> None:
        """Overwrite the rows of a slot with saved ones of :meth:`rows`, or with the initial ones."""
        while (slot + 1) * len(self.initial[0]) > len(self.tables[0]):
            self._grow()
        for own, given in zip(self.rows(slot), rows, strict=True):
            own.copy_(given)

    def _grow(self) -> None:
        for i, (table, initial) in enumerate(zip(self.tables, self.initial, strict=True)):
            added = table.new_empty(max(len(table), INITIAL_SLOTS * len(initial)), table.shape[1])
            self.tables[i] = torch.cat((table, added))

    def update(self, changes: Changes) -> Outputs:
        """Compute the changed patches stage by stage and return the logits of every frame."""
        for slot in changes.starting:
            self.restore(slot, self.initial)
        if len(changes.pixels):
            return self._update(changes)
        images = changes.mask.shape[:2]
        active = torch.zeros(*images, len(self.network.stages), dtype=torch.int64, device=changes.mask.device)
        return Outputs(rows_of(self.tables[-1], changes.slots).repeat(images[0], 1, 1), active)

    def _update(self, changes: Changes) -> Outputs:
        network, mask = self.network, changes.mask
        active = torch.empty(*mask.shape[:2], len(network.stages), dtype=torch.int64, device=mask.device)
        slots = torch.tensor(changes.slots, device=mask.device)
        x = changes.pixels
        for i, (stage, merge) in enumerate(zip(network.stages, (*network.merges, 1), strict=True)):
            active[..., i] = mask.sum(2)
            update = _TokenUpdate(self.tables[i], mask, stage(x), slots)
            mask = mask.unflatten(2, (-1, merge)).any(3)
            x = update.gather_children(mask)
            update.store()
        update = _TokenUpdate(self.tables[-1], mask, network.classify(x), slots)
        logits = update.latest()
        update.store()
        return Outputs(logits, active)


class _TokenUpdate:
    """Update of a stage's table with new tokens (R, C) of the patches marked by a mask (K, S, N)."""

    def __init__(self, table: torch.Tensor, mask: torch.Tensor, tokens: torch.Tensor, slots: torch.Tensor) -> None:
        self.table, self.tokens, self.slots = table, tokens, slots
        self.shape = mask.shape
        indices = mask.flatten().nonzero().squeeze(1)  # R
        self.one_frame = len(mask) == 1
        if self.one_frame:
            table.index_copy_(0, self._row(indices, mask.shape[2]), tokens)
        else:
            self.newest = self._newest(indices)

    def _newest(self, indices: torch.Tensor) -> torch.Tensor:
        """Return the newest token of each patch at each frame, (K, S, N): its number, or -1 for the table's."""
        newest = torch.full(self.shape, -1, device=indices.device)
        newest.view(-1)[indices] = torch.arange(len(indices), device=indices.device)
        for earlier, later in zip(newest, newest[1:], strict=False):  # token numbers ascend with time
            torch.maximum(earlier, later, out=later)
        return newest

    def _row(self, indices: torch.Tensor, patches: int) -> torch.Tensor:
        """Return the table rows, with `patches` rows per slot, of indices into (K, S, patches)."""
        stream = indices // patches % self.shape[1]
        return self.slots[stream] * patches + indices % patches

    def gather_children(self, mask: torch.Tensor) -> torch.Tensor:
        """Concatenate the latest children of the patches that a mask (K, S, N / merge) marks -> (R', merge C)."""
        parents = mask.flatten().nonzero().squeeze(1)
        merge = self.shape[2] // mask.shape[2]
        if self.one_frame:
            by_parent = self.table.view(-1, merge * self.table.shape[1])
            return by_parent.index_select(0, self._row(parents, mask.shape[2]))
        newest = self.newest.view(-1, merge)[parents].flatten()  # (R' merge)
        x = self.tokens.index_select(0, newest.clamp_min(0))
        old = (newest < 0).nonzero().squeeze(1)
        indices = parents[old // merge] * merge + old % merge
        x[old] = self.table.index_select(0, self._row(indices, self.shape[2]))
        return x.view(len(parents), -1)

    def latest(self) -> torch.Tensor:
        """Return the latest token of every patch at every frame: (K, S, N, C), or (K, S, C) if N is 1."""
        table = self.table.view(-1, self.shape[2], self.table.shape[1])
        if self.one_frame:
            return table[self.slots][None].flatten(2)
        x = self.tokens[self.newest.clamp_min(0)]  # K S N C
        return torch.where(self.newest[..., None] < 0, table[self.slots], x).flatten(2)

    def store(self) -> None:
        """Write the latest token of each patch after the last frame to the table."""
        if self.one_frame:
            return
        last = self.newest[-1].flatten()  # S N
        indices = (last >= 0).nonzero().squeeze(1)
        self.table.index_copy_(0, self._row(indices, self.shape[2]), self.tokens[last[indices]])


class CompiledFeatures(PatchFeatures):
    """Token cache that uses the compiled kernels; equals the base class."""

    def __init__(self, network: PatchNetwork, kernels: Kernels) -> None:
        super().__init__(network)
        self.kernels = kernels
        self._compiled = network.compiled()

    def _update(self, changes: Changes) -> Outputs:
        slots = torch.tensor(changes.slots)
        if self._compiled is not None and self.network.uses_compiled(
            len(changes.pixels), slots.numel() * len(changes.mask)
        ):
            return Outputs(*self._compiled.update(self.tables, changes.mask, changes.pixels, slots))
        return self._update_stages(changes, slots)

    def _update_stages(self, changes: Changes, slots: torch.Tensor) -> Outputs:
        """Update stage by stage, each on the faster implementation for the number of its patches."""
        network, kernels, mask = self.network, self.kernels, changes.mask
        merges = [*network.merges, 1]
        indices, newest, active = kernels.plan_stages(mask, network.counts, merges)
        x = changes.pixels
        for i, (stage, merge) in enumerate(zip(network.stages, merges, strict=True)):
            update = _CompiledUpdate(
                kernels, self.tables[i], newest[i], stage(x), slots, changes.slots, network.counts[i]
            )
            x = update.gather(indices[i + 1], merge) if i + 1 < len(merges) else update.tokens
            update.store()
        update = _CompiledUpdate(kernels, self.tables[-1], newest[-1], network.classify(x), slots, changes.slots, 1)
        logits = update.gather(torch.arange(len(newest[-1])), 1)  # (K S, classes)
        update.store()
        return Outputs(logits.unflatten(0, mask.shape[:2]), active)


class _CompiledUpdate:
    """Update of a stage's table (slots N, C) with new tokens (R, C), in bulk if all patches of all frames are new."""

    def __init__(
        self,
        kernels: Kernels,
        table: torch.Tensor,
        newest: torch.Tensor,
        tokens: torch.Tensor,
        slots: torch.Tensor,
        open_slots: list[int],
        patches: int,
    ) -> None:
        self.kernels, self.table, self.newest, self.tokens = kernels, table, newest, tokens
        self.slots, self.open_slots, self.patches = slots, open_slots, patches  # duplicate slots
        self.is_full = len(tokens) == len(newest)  # newest: (K S N,), as planned

    def gather(self, indices: torch.Tensor, merge: int) -> torch.Tensor:
        """Concatenate the latest tokens of `merge` patches, by index (R',) in (K, S, N / merge) -> (R', merge C)."""
        if self.is_full:
            return self.tokens.reshape(-1, merge * self.tokens.shape[1])
        return self.kernels.gather(self._described(), self.newest, indices, merge)

    def store(self) -> None:
        """Write the latest tokens after the last frame to the table."""
        last = len(self.open_slots) * self.patches
        if not self.is_full:
            self.kernels.store(self._described(), self.newest[-last:])
            return
        first = len(self.tokens) - last
        for stream, slot in enumerate(self.open_slots):
            latest = self.tokens.narrow(0, first + stream * self.patches, self.patches)
            self.table.narrow(0, slot * self.patches, self.patches).copy_(latest)

    def _described(self) -> Tokens:
        return Tokens.of(self.tokens, self.table, self.slots, self.patches)
