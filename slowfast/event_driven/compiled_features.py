"""Renews tokens with the compiled kernels: all stages are planned in one call, and a stage is gathered in one."""

from __future__ import annotations

import torch

from slowfast.event_driven.compiled import Kernels, Tokens
from slowfast.event_driven.detector import Changes
from slowfast.event_driven.features import PatchFeatures, Renewed
from slowfast.event_driven.network import PatchNetwork


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
