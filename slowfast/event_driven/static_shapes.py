"""Change detector and token cache with static shapes, CUDA graphs that capture them, and asynchronous copies.

Notation: K frames per stream, S streams, N = n x n patches per stage in nested order, P = K S N patches of a chunk, C
token dimensions, R patches to compute. *Patch index*: position in (K, S, N).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from slowfast.event_driven.detector import ChangeDetector, Changes, GateSettings, changed_patches
from slowfast.event_driven.features import Outputs, PatchFeatures
from slowfast.event_driven.linear_kernels import round_up
from slowfast.event_driven.network import PatchNetwork
from slowfast.models.evmlp import nested_patches
from slowfast.utils.logging import get_logger

Work = Callable[[], None]


class Graphs(Protocol):
    """Interface that turns a function into one that replays its work on the device."""

    def capture(self, work: Work) -> Work: ...


class CudaGraphs:
    """CUDA graphs with a shared memory pool; they must not be replayed concurrently.

    While a graph is captured nothing else may use the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, work: Work) -> Work:
        """Run `work` once, capture it, and return a function that replays it on the current stream."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            work()  # warm-up: libraries initialize in the first call, which is not allowed during capture
        current.wait_stream(self._stream)
        with torch.cuda.device(self.device):
            graph = torch.cuda.CUDAGraph()
            # thread_local: the thread of a data loader may allocate pinned memory.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                work()
        return graph.replay


class Steps:
    """Functions on the same buffers, identified by keys; replayed if they were captured, else called."""

    def __init__(self) -> None:
        self._replays: dict[Hashable, Work] = {}

    def capture(self, graphs: Graphs, key: Hashable, work: Work) -> None:
        """Capture a function. This also runs it, so the buffers must be initialized."""
        self._replays[key] = graphs.capture(work)

    def run(self, key: Hashable, work: Work) -> None:
        """Replay or call a function."""
        self._replays.get(key, work)()


def to_device(values: list[Any], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Copy numbers from the host to a tensor on the device without waiting."""
    pinned = device.type == "cuda"  # copies from pageable memory block
    return torch.tensor(values, dtype=dtype, pin_memory=pinned).to(device, non_blocking=True)


class HostCopy:
    """Asynchronous copy of a tensor to host memory."""

    def __init__(self, tensor: torch.Tensor) -> None:
        on_gpu = tensor.device.type == "cuda"
        self._copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=on_gpu)
        self._copy.copy_(tensor, non_blocking=True)
        self._arrived = torch.cuda.Event() if on_gpu else None
        if self._arrived is not None:
            self._arrived.record(torch.cuda.current_stream(tensor.device))

    def wait(self) -> torch.Tensor:
        """Return the copy. On a GPU this waits for the work that was queued before it, not for later work."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._copy.clone()  # frees the pinned memory, which is scarce


@dataclass(frozen=True)
class StaticChanges(Changes):
    """Changes whose `pixels` (K S N, p p 3) contain all patches, changed or not."""

    slot_tensor: torch.Tensor  # slots on the device, int64 (S,)
    active: torch.Tensor | HostCopy  # patches to compute, int64 (K, S, stages): on the device, or copied to the host


class StaticChangeDetector(ChangeDetector):
    """Change detector whose work can be captured.

    Args:
        network: Network to detect changes for.
        settings: Settings of the gate.
        wait: Copy the numbers of changed patches to the host, which waits for them before computing.
    """

    def __init__(self, network: PatchNetwork, settings: GateSettings, wait: bool) -> None:
        super().__init__(network, settings)
        self.merges, self.wait = network.merges, wait
        self._captured: dict[tuple[int, int], _GateBuffers] = {}

    def capture(self, frames: int, streams: int, graphs: Graphs) -> None:
        """Capture the work on `frames` frames of `streams` streams."""
        buffers = self._buffers(frames, streams)
        buffers.steps.capture(graphs, "detect", partial(self._detect, buffers))
        self._captured[frames, streams] = buffers

    def __call__(self, frames: torch.Tensor, slots: list[int]) -> StaticChanges:
        full, starting = self._advance(len(frames), slots)
        slot_tensor = to_device(slots, torch.int64, frames.device)
        buffers = self._captured.get((len(frames), len(slots))) or self._buffers(len(frames), len(slots))
        buffers.frames.copy_(frames)
        buffers.full.copy_(to_device(full, torch.bool, frames.device))
        torch.index_select(self.references, 0, slot_tensor, out=buffers.held)
        buffers.steps.run("detect", partial(self._detect, buffers))
        self.references.index_copy_(0, slot_tensor, buffers.held)
        pixels = nested_patches(frames.flatten(0, 1), self.sides).flatten(0, 1)
        active = HostCopy(buffers.active) if self.wait else buffers.active.clone()
        return StaticChanges(buffers.mask.clone(), pixels, slots, starting, slot_tensor, active)

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
        frames, held, full = buffers.frames, buffers.held, buffers.full[..., None, None]  # full: K S 1 1
        if self.settings.reference == "previous":
            previous = torch.cat((held[None], frames[:-1]))
            changed = self._differ(frames.flatten(0, 1), previous.flatten(0, 1))  # (K S) n n
            changed = changed.unflatten(0, frames.shape[:2]).logical_or_(full)
            held.copy_(frames[-1])
        else:
            changed = torch.stack([self._hold(*pair, held) for pair in zip(frames, full, strict=True)])
        mask = changed.flatten(2).index_select(2, self.order)  # K S N
        buffers.mask.copy_(mask)
        for stage, merge in enumerate((*self.merges, 1)):
            buffers.active[..., stage] = mask.sum(2)
            mask = mask.unflatten(2, (-1, merge)).any(3)

    def _hold(self, frame: torch.Tensor, full: torch.Tensor, held: torch.Tensor) -> torch.Tensor:
        """Mark the changed patches of a frame (S, 3, H, W), bool (S, n, n), and copy them to `held`."""
        changed = self._differ(frame, held).logical_or_(full)
        n, p = changed.shape[-1], self.patch
        pixels = changed[:, :, None, :, None].expand(-1, n, p, n, p).reshape(len(frame), 1, n * p, n * p)
        torch.where(pixels, frame, held, out=held)
        return changed

    def _differ(self, frames: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        """Compare images (B, 3, H, W) with references of that shape -> bool (B, n, n)."""
        return changed_patches(frames, references, self.patch, self.settings.gate, self.settings.threshold)


@dataclass(frozen=True)
class _GateBuffers:
    frames: torch.Tensor  # (K, S, 3, H, W)
    held: torch.Tensor  # (S, 3, H, W), the references
    full: torch.Tensor  # bool (K, S), frames that are computed in full
    mask: torch.Tensor  # bool (K, S, N)
    active: torch.Tensor  # int64 (K, S, stages)
    steps: Steps


_MIN_ROWS = 64  # fewer rows are not faster on a GPU


def padded_rows(count: int, limit: int) -> int:
    """Round a number of patches up to one of few sizes, by at most a quarter or 63; at most `limit`."""
    return min(round_up(count, _MIN_ROWS, 3), limit)


def possible_rows(limit: int) -> list[int]:
    """Return all values of :func:`padded_rows` for counts from 1 to `limit`."""
    sizes = [padded_rows(1, limit)]
    while sizes[-1] < limit:
        sizes.append(padded_rows(sizes[-1] + 1, limit))
    return sizes


class StaticPatchFeatures(PatchFeatures):
    """Token cache whose work can be captured; it is updated by StaticChanges.

    Args:
        network: Network to run.
        wait: Wait for the numbers of changed patches; otherwise all patches are computed.
    """

    def __init__(self, network: PatchNetwork, wait: bool) -> None:
        super().__init__(network)
        self.wait = wait
        self._captured: dict[tuple[int, int], _StageBuffers] = {}

    def capture(self, frames: int, streams: int, graphs: Graphs) -> None:
        """Capture the work on `frames` frames of `streams` streams, for every possible number of rows."""
        while streams * len(self.initial[0]) > len(self.tables[0]):
            self._grow()
        buffers = self._buffers(frames, streams)  # no patch is marked, so the run has no effect
        for stage, mask in enumerate(buffers.masks):
            for rows in possible_rows(mask.numel()) if self.wait else [mask.numel()]:
                buffers.steps.capture(graphs, (stage, rows), partial(self._compute_stage, buffers, stage, rows))
        self._captured[frames, streams] = buffers

    def _grow(self) -> None:
        super()._grow()
        if self._captured:
            get_logger().info("event-driven inference: more streams than were captured; running without CUDA graphs")
            self._captured.clear()  # the tables have moved

    def update(self, changes: Changes) -> Outputs:
        assert isinstance(changes, StaticChanges)
        frames, streams = changes.mask.shape[:2]
        for slot in changes.starting:
            self.restore(slot, self.initial)
        buffers = self._captured.get((frames, streams)) or self._buffers(frames, streams)
        limits = [mask.numel() for mask in buffers.masks]
        if isinstance(changes.active, HostCopy):
            active = changes.active.wait()
            counts = active.sum((0, 1)).tolist()
            if not counts[0]:
                return Outputs(self.tables[-1].index_select(0, changes.slot_tensor).repeat(frames, 1, 1), active)
            sizes = [padded_rows(count, limit) for count, limit in zip(counts, limits, strict=True)]
        else:
            active, sizes = changes.active, limits
        buffers.masks[0].copy_(changes.mask)
        buffers.pixels.copy_(changes.pixels)
        buffers.slots.copy_(changes.slot_tensor)
        for stage, rows in enumerate(sizes):
            buffers.steps.run((stage, rows), partial(self._compute_stage, buffers, stage, rows))
        return Outputs(buffers.logits.clone(), active)

    def _buffers(self, frames: int, streams: int) -> _StageBuffers:
        network, device, images = self.network, self.network.device, frames * streams
        counts, dims = (*network.counts, 1), [rows.shape[1] for rows in self.initial]  # the last entries are logits
        masks = [torch.empty(frames, streams, n, dtype=torch.bool, device=device) for n in network.counts]
        return _StageBuffers(
            torch.empty(images * counts[0], 3 * network.patch**2, device=device),
            torch.zeros(streams, dtype=torch.int64, device=device),
            [masks[0].zero_(), *masks[1:]],
            [torch.empty(images * n, dim, device=device) for n, dim in zip(counts, dims, strict=True)],
            [torch.empty(frames, streams, n, dtype=torch.int64, device=device) for n in counts],
            torch.empty(frames, streams, dims[-1], device=device),
            Steps(),
        )

    def _compute_stage(self, buffers: _StageBuffers, stage: int, rows: int) -> None:
        """Compute the marked patches of a stage and store the stage below; after the last stage, classify."""
        network, mask = self.network, buffers.masks[stage]
        marked = mask.flatten().cumsum(0)  # P
        numbers = torch.arange(1, rows + 1, device=mask.device)
        indices = torch.searchsorted(marked, numbers).clamp_max_(mask.numel() - 1)  # R
        if stage == 0:
            x = buffers.pixels.index_select(0, indices)
        else:
            x = self._children(buffers, stage, indices)
            self._store(buffers, stage - 1)
        token = (marked - 1).view_as(mask).masked_fill_(~mask, -1)  # computed at this frame
        buffers.newest[stage].copy_(token.cummax(0).values)  # token numbers ascend with time
        tokens = network.stages[stage](x)
        buffers.tokens[stage][:rows].copy_(tokens)
        if stage + 1 < len(network.stages):
            buffers.masks[stage + 1].copy_(mask.unflatten(2, (-1, network.merges[stage])).any(3))
        else:
            self._classify(buffers, stage, tokens)

    def _classify(self, buffers: _StageBuffers, stage: int, tokens: torch.Tensor) -> None:
        """Compute the logits of the last stage's new tokens (R, C), and store both."""
        buffers.tokens[-1][: len(tokens)].copy_(self.network.classify(tokens))
        buffers.newest[-1].copy_(buffers.newest[stage])
        buffers.logits.copy_(self._latest(buffers, -1, buffers.newest[-1]).squeeze(2))  # K S classes
        self._store(buffers, stage)
        self._store(buffers, -1)

    def _children(self, buffers: _StageBuffers, stage: int, indices: torch.Tensor) -> torch.Tensor:
        """Concatenate the latest children of patches of a stage, by patch index (R,) -> (R, merge C)."""
        below, merge = self.tables[stage - 1], self.network.merges[stage - 1]
        _, streams, n = buffers.masks[stage].shape
        rows = buffers.slots[indices // n % streams] * n + indices % n  # R, in the table with `merge` rows concatenated
        old = below.view(-1, merge * below.shape[1]).index_select(0, rows)
        newest = buffers.newest[stage - 1].view(-1, merge).index_select(0, indices)  # R merge
        new = buffers.tokens[stage - 1].index_select(0, newest.flatten().clamp_min(0))  # (R merge) C
        return torch.where(newest[..., None] < 0, old.view(*newest.shape, -1), new.view(*newest.shape, -1)).flatten(1)

    def _latest(self, buffers: _StageBuffers, stage: int, newest: torch.Tensor) -> torch.Tensor:
        """Return the latest tokens (..., S, N, C) by the number of the newest token, (..., S, N)."""
        table = self.tables[stage].view(-1, newest.shape[-1], self.tables[stage].shape[1])
        old = table.index_select(0, buffers.slots)  # S N C
        new = buffers.tokens[stage].index_select(0, newest.flatten().clamp_min(0))
        return torch.where(newest[..., None] < 0, old, new.view(*newest.shape, -1))

    def _store(self, buffers: _StageBuffers, stage: int) -> None:
        """Write the latest token of each patch after the last frame to the table."""
        newest = buffers.newest[stage][-1]  # S N
        table = self.tables[stage].view(-1, newest.shape[-1], self.tables[stage].shape[1])
        table.index_copy_(0, buffers.slots, self._latest(buffers, stage, newest))


@dataclass(frozen=True)
class _StageBuffers:
    """Buffers of all stages; `tokens` and `newest` have one more entry, for the logits."""

    pixels: torch.Tensor  # (P, p p 3), all patches
    slots: torch.Tensor  # int64 (S,)
    masks: list[torch.Tensor]  # bool (K, S, N), the patches to compute
    tokens: list[torch.Tensor]  # (P, C), new tokens first, ordered by frame, stream and patch
    newest: list[torch.Tensor]  # int64 (K, S, N), number of the newest token of a patch, -1 for the table's
    logits: torch.Tensor  # (K, S, classes)
    steps: Steps
