"""Change detector and token cache that use the compiled CPU kernels."""

from __future__ import annotations

import torch

from slowfast.event_driven.detector import ChangeDetector, Changes, GateSettings, MaskAndPixels, layout
from slowfast.event_driven.features import Outputs, PatchFeatures
from slowfast.event_driven.kernels import Kernels, Tokens, takes_frames
from slowfast.event_driven.network import PatchNetwork


class CompiledDetector(ChangeDetector):
    """Change detector that uses the compiled kernels; equals the base class up to summation order within a patch."""

    def __init__(self, network: PatchNetwork, settings: GateSettings, kernels: Kernels) -> None:
        super().__init__(network, settings)
        self.kernels = kernels
        mean, hold = settings.gate == "mean", settings.reference == "hold"
        self._gate = network.gate(settings.threshold, mean, hold)

    def _find(self, frames: torch.Tensor, slots: list[int], full: list[list[bool]]) -> MaskAndPixels:
        if not takes_frames(frames):
            return super()._find(frames, slots, full)
        if frames.stride()[2:] != self.references.stride()[1:]:  # crops of larger frames
            images = frames.flatten(0, 1).contiguous(memory_format=layout(frames[0]))
            frames = images.unflatten(0, frames.shape[:2])
        mask = self.kernels.find_changes(frames, self.references, torch.tensor(slots), self._gate, torch.tensor(full))
        indices = mask.flatten().nonzero().squeeze(1)
        return mask, self.kernels.take_patches(frames, indices, self._gate, self.order)


class CompiledFeatures(PatchFeatures):
    """Token cache that uses the compiled kernels; equals the base class."""

    def __init__(self, network: PatchNetwork, kernels: Kernels) -> None:
        super().__init__(network)
        self.kernels = kernels

    def _update(self, changes: Changes) -> Outputs:
        network, kernels, mask = self.network, self.kernels, changes.mask
        merges = [*network.merges, 1]
        slots = torch.tensor(changes.slots)
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
