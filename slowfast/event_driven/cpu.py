"""Event-driven steps on the CPU with the compiled kernels."""

from __future__ import annotations

import torch

from slowfast.event_driven.detector import ChangeDetector, Changes, Found, GateSettings, layout
from slowfast.event_driven.features import PatchFeatures, Renewed
from slowfast.event_driven.kernels import Gate, Kernels, Tokens, takes_frames
from slowfast.event_driven.network import PatchNetwork


class CompiledDetector(ChangeDetector):
    """The same changes as ChangeDetector's, up to the order in which a patch's differences are added up."""

    def __init__(self, network: PatchNetwork, settings: GateSettings, kernels: Kernels) -> None:
        super().__init__(network, settings)
        self.kernels = kernels
        mean, hold = settings.gate == "mean", settings.reference == "hold"
        nested = network.order.argsort()
        self._gate = Gate.of(network.side, network.patch, settings.threshold, mean, hold, nested)

    def _find(self, frames: torch.Tensor, slots: list[int], whole: list[list[bool]]) -> Found:
        if not takes_frames(frames):
            return super()._find(frames, slots, whole)
        if frames.stride()[2:] != self.references.stride()[1:]:  # parts of larger frames
            together = frames.flatten(0, 1).contiguous(memory_format=layout(frames[0]))
            frames = together.unflatten(0, frames.shape[:2])
        numbers, entire = torch.tensor(slots), torch.tensor(whole)
        mask = self.kernels.find_changes(frames, self.references, numbers, self._gate, entire)
        places = mask.flatten().nonzero().squeeze(1)
        return mask, self.kernels.take_patches(frames, places, self._gate, self.order)


class CompiledFeatures(PatchFeatures):
    """The same tokens and logits as PatchFeatures'."""

    def __init__(self, network: PatchNetwork, kernels: Kernels) -> None:
        super().__init__(network)
        self.kernels = kernels

    def _renew(self, changes: Changes) -> Renewed:
        network, kernels, mask = self.network, self.kernels, changes.mask
        merges = [*network.merges, 1]
        slots = torch.tensor(changes.slots)
        places, newest, active = kernels.plan_stages(mask, network.counts, merges)
        x = changes.pixels
        for i, stage in enumerate(network.stages):
            tokens = stage(x)
            of = Tokens.of(tokens, self.tables[i], slots, network.counts[i])
            if i + 1 < len(merges):
                x = kernels.gather(of, newest[i], places[i + 1], merges[i])
            kernels.keep(of, newest[i][-len(slots) * network.counts[i] :])
        of = Tokens.of(network.classify(tokens), self.tables[-1], slots, 1)
        logits = kernels.gather(of, newest[-1], torch.arange(len(newest[-1])), 1)  # one patch an image: (K S, classes)
        kernels.keep(of, newest[-1][-len(slots) :])
        return Renewed(logits.unflatten(0, mask.shape[:2]), active)
