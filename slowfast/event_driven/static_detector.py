"""Finds the changed patches in shapes that do not depend on what changed, without the host waiting for the device.

All patches of all frames are handed on, with the mask; how many are active in each stage is counted on the device and
sent to the host. K frames of each of S streams, H x W pixels, N = n x n patches of p x p pixels in nested order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from slowfast.event_driven.captured import Graphs, Steps
from slowfast.event_driven.detector import ChangeDetector, Changes, GateSettings
from slowfast.event_driven.gate import changed_patches
from slowfast.event_driven.network import PatchNetwork
from slowfast.event_driven.transfer import HostCopy, to_device
from slowfast.models.evmlp import nested_patches


@dataclass(frozen=True)
class StaticChanges(Changes):
    """Changes whose `pixels` (K S N, p p 3) are of all patches, changed or not."""

    numbers: torch.Tensor  # the slots on the device, int64 (S,)
    active: torch.Tensor | HostCopy  # patches to compute, int64 (K, S, stages): on the device, or sent to the host


class StaticChangeDetector(ChangeDetector):
    """Compares frames with what is remembered of each slot's stream; what it does can be captured.

    wait: send the counts to the host, which waits for them before it computes.
    """

    def __init__(self, network: PatchNetwork, settings: GateSettings, wait: bool) -> None:
        super().__init__(network, settings)
        self.merges, self.wait = network.merges, wait
        self._captured: dict[tuple[int, int], _GateBuffers] = {}

    def capture(self, frames: int, streams: int, graphs: Graphs) -> None:
        """Capture the work on so many frames of so many streams."""
        buffers = self._buffers(frames, streams)
        buffers.steps.capture(graphs, "detect", partial(self._detect, buffers))
        self._captured[frames, streams] = buffers

    def __call__(self, frames: torch.Tensor, slots: list[int]) -> StaticChanges:
        whole, starting = self._advance(len(frames), slots)
        numbers = to_device(slots, torch.int64, frames.device)
        buffers = self._captured.get((len(frames), len(slots))) or self._buffers(len(frames), len(slots))
        buffers.frames.copy_(frames)
        buffers.whole.copy_(to_device(whole, torch.bool, frames.device))
        torch.index_select(self.references, 0, numbers, out=buffers.held)
        buffers.steps.run("detect", partial(self._detect, buffers))
        self.references.index_copy_(0, numbers, buffers.held)
        pixels = nested_patches(frames.flatten(0, 1), self.sides).flatten(0, 1)
        active = HostCopy(buffers.active) if self.wait else buffers.active.clone()
        return StaticChanges(buffers.mask.clone(), pixels, slots, starting, numbers, active)

    def _buffers(self, frames: int, streams: int) -> _GateBuffers:
        device, size = self.references.device, self.references.shape[1:]
        return _GateBuffers(
            torch.empty(frames, streams, *size, device=device),
            torch.empty(streams, *size, device=device),
            torch.empty(frames, streams, dtype=torch.bool, device=device),
            torch.empty(frames, streams, len(self.order), dtype=torch.bool, device=device),
            torch.empty(frames, streams, 1 + len(self.merges), dtype=torch.int64, device=device),
            Steps(),
        )

    def _detect(self, buffers: _GateBuffers) -> None:
        frames, held, whole = buffers.frames, buffers.held, buffers.whole[..., None, None]  # whole: K S 1 1
        if self.settings.reference == "previous":
            before = torch.cat((held[None], frames[:-1]))
            changed = self._differ(frames.flatten(0, 1), before.flatten(0, 1))  # (K S) n n
            changed = changed.unflatten(0, frames.shape[:2]).logical_or_(whole)
            held.copy_(frames[-1])
        else:
            changed = torch.stack([self._hold(frame, held, all_) for frame, all_ in zip(frames, whole, strict=True)])
        mask = changed.flatten(2).index_select(2, self.order)  # K S N
        buffers.mask.copy_(mask)
        for stage, merge in enumerate((*self.merges, 1)):
            buffers.active[..., stage] = mask.sum(2)
            mask = mask.unflatten(2, (-1, merge)).any(3)

    def _hold(self, frame: torch.Tensor, held: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        """What changed in frames (S, 3, H, W), bool (S, n, n); `held` receives it."""
        changed = self._differ(frame, held).logical_or_(whole)
        n, p = changed.shape[-1], self.patch
        pixels = changed[:, :, None, :, None].expand(-1, n, p, n, p).reshape(len(frame), 1, n * p, n * p)
        torch.where(pixels, frame, held, out=held)
        return changed

    def _differ(self, frames: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) twice -> bool (B, n, n)."""
        return changed_patches(frames, references, self.patch, self.settings.gate, self.settings.threshold)


@dataclass(frozen=True)
class _GateBuffers:
    frames: torch.Tensor  # (K, S, 3, H, W)
    held: torch.Tensor  # (S, 3, H, W), the references before and after
    whole: torch.Tensor  # bool (K, S), frames that are computed as a whole
    mask: torch.Tensor  # bool (K, S, N)
    active: torch.Tensor  # int64 (K, S, stages)
    steps: Steps
