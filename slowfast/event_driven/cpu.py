"""Change detector and token cache on the compiled CPU kernels."""

from __future__ import annotations

import torch

from slowfast.event_driven.detector import ChangeDetector, Changes, GateSettings, MaskAndPixels, layout
from slowfast.event_driven.features import Outputs, PatchFeatures
from slowfast.event_driven.kernels import Kernels, Tokens, takes_frames
from slowfast.event_driven.network import PatchNetwork


class CompiledDetector(ChangeDetector):
    """Change detector on the compiled kernels; equal to the base class up to the order of summation in a patch."""

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
    """Token cache on the compiled kernels; equal to the base class."""

    def __init__(self, network: PatchNetwork, kernels: Kernels) -> None:
        super().__init__(network)
        self.kernels = kernels

    def _update(self, changes: Changes) -> Outputs:
        network, kernels, mask = self.network, self.kernels, changes.mask
        merges = [*network.merges, 1]
        slots = torch.tensor(changes.slots)
        indices, newest, active = kernels.plan_stages(mask, network.counts, merges)
        x = changes.pixels
        for i, stage in enumerate(network.stages):
            tokens = stage(x)
            update = Tokens.of(tokens, self.tables[i], slots, network.counts[i])
            if i + 1 < len(merges):
                x = kernels.gather(update, newest[i], indices[i + 1], merges[i])
            kernels.store(update, newest[i][-len(slots) * network.counts[i] :])
        update = Tokens.of(network.classify(tokens), self.tables[-1], slots, 1)
        logits = kernels.gather(update, newest[-1], torch.arange(len(newest[-1])), 1)  # (K S, classes)
        kernels.store(update, newest[-1][-len(slots) :])
        return Outputs(logits.unflatten(0, mask.shape[:2]), active)
