"""Finds changed patches with the compiled kernels: a whole chunk of all streams in one call."""

from __future__ import annotations

import torch

from slowfast.event_driven.compiled import Gate, Kernels, takes_frames
from slowfast.event_driven.detector import ChangeDetector, Found, GateSettings, layout
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
