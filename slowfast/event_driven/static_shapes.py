"""Event-driven steps of static shapes, which CUDA graphs can capture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from slowfast.event_driven.cuda_graphs import Graphs, HostCopy, Steps, to_device
from slowfast.event_driven.detector import ChangeDetector, Changes, GateSettings, changed_patches
from slowfast.event_driven.features import PatchFeatures, Renewed
from slowfast.event_driven.network import PatchNetwork, few_sizes
from slowfast.models.evmlp import nested_patches
from slowfast.utils.logging import get_logger


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


_FEWEST = 64  # rows: a GPU takes as long for less


def rows_for(count: int, most: int) -> int:
    """`count`, or more by up to a quarter or 63, from few possible values; at most `most`."""
    return min(few_sizes(count, _FEWEST, 3), most)


def possible_rows(most: int) -> list[int]:
    """What `rows_for` gives for counts from 1 to `most`."""
    sizes = [rows_for(1, most)]
    while sizes[-1] < most:
        sizes.append(rows_for(sizes[-1] + 1, most))
    return sizes


class StaticPatchFeatures(PatchFeatures):
    """Tables of tokens that StaticChanges renew. wait: the counts come to the host; else all patches are computed."""

    def __init__(self, network: PatchNetwork, wait: bool) -> None:
        super().__init__(network)
        self.wait = wait
        self._captured: dict[tuple[int, int], _StageBuffers] = {}

    def capture(self, frames: int, streams: int, graphs: Graphs) -> None:
        """Capture the work on so many frames of so many streams, for each number of rows."""
        while streams * len(self.start[0]) > len(self.tables[0]):
            self._grow()
        buffers = self._buffers(frames, streams)  # nothing is marked: running it renews nothing
        for stage, mask in enumerate(buffers.masks):
            for rows in possible_rows(mask.numel()) if self.wait else [mask.numel()]:
                buffers.steps.capture(graphs, (stage, rows), partial(self._renew_stage, buffers, stage, rows))
        self._captured[frames, streams] = buffers

    def _grow(self) -> None:
        super()._grow()
        if self._captured:
            get_logger().info("event-driven inference: more streams than room was made for; nothing captured holds")
            self._captured.clear()  # the tables were elsewhere

    def renew(self, changes: Changes) -> Renewed:
        assert isinstance(changes, StaticChanges)
        frames, streams = changes.mask.shape[:2]
        for slot in changes.starting:
            self.restore(slot, self.start)
        buffers = self._captured.get((frames, streams)) or self._buffers(frames, streams)
        most = [mask.numel() for mask in buffers.masks]
        if isinstance(changes.active, HostCopy):
            active = changes.active.wait()
            counts = active.sum((0, 1)).tolist()
            if not counts[0]:
                return Renewed(self.tables[-1].index_select(0, changes.numbers).repeat(frames, 1, 1), active)
            sizes = [rows_for(count, all_) for count, all_ in zip(counts, most, strict=True)]
        else:
            active, sizes = changes.active, most
        buffers.masks[0].copy_(changes.mask)
        buffers.pixels.copy_(changes.pixels)
        buffers.slots.copy_(changes.numbers)
        for stage, rows in enumerate(sizes):
            buffers.steps.run((stage, rows), partial(self._renew_stage, buffers, stage, rows))
        return Renewed(buffers.logits.clone(), active)

    def _buffers(self, frames: int, streams: int) -> _StageBuffers:
        network, device, places = self.network, self.network.device, frames * streams
        counts, widths = (*network.counts, 1), [start.shape[1] for start in self.start]  # the last: of the logits
        masks = [torch.empty(frames, streams, n, dtype=torch.bool, device=device) for n in network.counts]
        return _StageBuffers(
            torch.empty(places * counts[0], 3 * network.patch**2, device=device),
            torch.zeros(streams, dtype=torch.int64, device=device),
            [masks[0].zero_(), *masks[1:]],
            [torch.empty(places * n, width, device=device) for n, width in zip(counts, widths, strict=True)],
            [torch.empty(frames, streams, n, dtype=torch.int64, device=device) for n in counts],
            torch.empty(frames, streams, widths[-1], device=device),
            Steps(),
        )

    def _renew_stage(self, buffers: _StageBuffers, stage: int, rows: int) -> None:
        """Compute a stage's marked patches; write the stage below to its table, after the last stage all the others."""
        network, mask = self.network, buffers.masks[stage]
        marked = mask.flatten().cumsum(0)  # P
        order = torch.arange(1, rows + 1, device=mask.device)
        places = torch.searchsorted(marked, order).clamp_max_(mask.numel() - 1)  # R
        if stage == 0:
            x = buffers.pixels.index_select(0, places)
        else:
            x = self._children(buffers, stage, places)
            self._keep(buffers, stage - 1)
        token = (marked - 1).view_as(mask).masked_fill_(~mask, -1)  # computed at this very frame
        buffers.newest[stage].copy_(token.cummax(0).values)  # numbers rise with time
        tokens = network.stages[stage](x)
        buffers.tokens[stage][:rows].copy_(tokens)
        if stage + 1 < len(network.stages):
            buffers.masks[stage + 1].copy_(mask.unflatten(2, (-1, network.merges[stage])).any(3))
        else:
            self._classify(buffers, stage, tokens)

    def _classify(self, buffers: _StageBuffers, stage: int, tokens: torch.Tensor) -> None:
        """The last stage's new tokens (R, C) to logits, and both to their tables."""
        buffers.tokens[-1][: len(tokens)].copy_(self.network.classify(tokens))
        buffers.newest[-1].copy_(buffers.newest[stage])
        logits = self._latest(buffers, -1, buffers.newest[-1])  # K S 1 classes
        buffers.logits.copy_(logits.squeeze(2))
        self._keep(buffers, stage)
        self._keep(buffers, -1)

    def _children(self, buffers: _StageBuffers, stage: int, places: torch.Tensor) -> torch.Tensor:
        """What the patches at some places (R,) of a stage are made of: (R, merge C)."""
        below, merge = self.tables[stage - 1], self.network.merges[stage - 1]
        _, streams, n = buffers.masks[stage].shape
        rows = buffers.slots[places // n % streams] * n + places % n  # R, of the table, `merge` rows side by side
        old = below.view(-1, merge * below.shape[1]).index_select(0, rows)
        newest = buffers.newest[stage - 1].view(-1, merge).index_select(0, places)  # R merge
        new = buffers.tokens[stage - 1].index_select(0, newest.flatten().clamp_min(0))  # (R merge) C
        return torch.where(newest[..., None] < 0, old.view(*newest.shape, -1), new.view(*newest.shape, -1)).flatten(1)

    def _latest(self, buffers: _StageBuffers, stage: int, newest: torch.Tensor) -> torch.Tensor:
        """The rows that hold where `newest` (..., S, N) says which token is the newest: (..., S, N, C)."""
        table = self.tables[stage].view(-1, newest.shape[-1], self.tables[stage].shape[1])
        old = table.index_select(0, buffers.slots)  # S N C
        new = buffers.tokens[stage].index_select(0, newest.flatten().clamp_min(0))
        return torch.where(newest[..., None] < 0, old, new.view(*newest.shape, -1))

    def _keep(self, buffers: _StageBuffers, stage: int) -> None:
        """Write each place's last token to the table."""
        newest = buffers.newest[stage][-1]  # S N
        table = self.tables[stage].view(-1, newest.shape[-1], self.tables[stage].shape[1])
        table.index_copy_(0, buffers.slots, self._latest(buffers, stage, newest))


@dataclass(frozen=True)
class _StageBuffers:
    """Lists have an entry a stage; tokens and newest also one for the logits."""

    pixels: torch.Tensor  # (P, p p 3), of all patches
    slots: torch.Tensor  # int64 (S,)
    masks: list[torch.Tensor]  # bool (K, S, N), the patches to compute
    tokens: list[torch.Tensor]  # (P, C), the new ones come first, in order of frame, stream, patch
    newest: list[torch.Tensor]  # int64 (K, S, N), the token that holds at each place, -1 where the table's does
    logits: torch.Tensor  # (K, S, classes)
    steps: Steps
