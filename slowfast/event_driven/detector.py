"""Finds the changed patches of streams of frames. It looks at pixels only, so it may run ahead of the network.

K frames of each of S streams, H x W pixels, N = n x n patches of p x p pixels in nested order (models/evmlp.py).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch

from slowfast.event_driven.network import PatchNetwork
from slowfast.models.evmlp import nested_patches

Reduce = Callable[[torch.Tensor, int], torch.Tensor]
# What of a patch's absolute differences is compared with the threshold: the largest, as published, or the mean.
GATES: dict[str, Reduce] = {"any": torch.amax, "mean": torch.mean}
# What a frame is compared with: the frame before, as published, or each patch as it was when last computed.


def changed_patches(
    frames: torch.Tensor, references: torch.Tensor, patch: int, gate: str, threshold: float
) -> torch.Tensor:
    """Patches that differ by more than the threshold: (B, C, H, W) twice -> bool (B, n, n).

    A difference that is no number (a NaN pixel) is a change. With threshold 0 every patch with a changed pixel is.
    """
    reduce = GATES[gate]
    change = torch.sub(frames, references).abs_()
    b, c, h, w = change.shape
    if change.is_contiguous():
        rows = reduce(reduce(change.view(b, c, h // patch, patch, w), 3), 1)  # B n W
        patches = reduce(rows.view(b, h // patch, w // patch, patch), 3)
    else:  # channels last in memory
        rows = reduce(change.permute(0, 2, 3, 1).reshape(b, h // patch, patch, w * c), 2)  # B n (W C)
        patches = reduce(rows.view(b, h // patch, w // patch, patch * c), 3)
    return ~(patches <= threshold)


def rows_of(table: torch.Tensor, slots: list[int]) -> torch.Tensor:
    """table[slots]: a view of it where the slots follow one another, else a copy."""
    first = slots[0]
    if slots == list(range(first, first + len(slots))):
        return table[first : first + len(slots)]
    return table[slots]


class Slots:
    """Gives each open stream a number, and closed streams' numbers to new ones."""

    def __init__(self) -> None:
        self.of: dict[Hashable, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.of) + len(self._free)

    def open(self, stream: Hashable) -> int:
        """The number of a new stream: the lowest one that is free."""
        slot = self._free.pop() if self._free else len(self.of)
        self.of[stream] = slot
        return slot

    def close(self, stream: Hashable) -> None:
        """Free a stream's number."""
        self._free.append(self.of.pop(stream))
        self._free.sort(reverse=True)


Found = tuple[torch.Tensor, torch.Tensor]  # mask and pixels of Changes
SLOTS = 4  # room is made for so many streams at first


@dataclass(frozen=True)
class Changes:
    """What the network has to compute, in order of time, stream, patch."""

    mask: torch.Tensor  # bool (K, S, N)
    pixels: torch.Tensor  # (R, p p 3): the changed patches
    slots: list[int]  # of the S streams
    starting: list[int]  # the slots among them whose streams begin here


@dataclass(frozen=True)
class GateSettings:
    """threshold: in units of the normalized frame; reference, gate: names of gate.py; keyframe_every: 0 for never."""

    threshold: float
    reference: str
    gate: str
    keyframe_every: int


class ChangeDetector:
    """Compares frames with what is remembered of each slot's stream."""

    def __init__(self, network: PatchNetwork, settings: GateSettings) -> None:
        self.settings = settings
        self.patch, self.sides, self.order = network.patch, network.sides, network.order
        self.seen: list[int] = []  # frames of each slot so far
        self.references = torch.empty(0, 3, network.side, network.side, device=network.device)

    def reset(self, slot: int) -> None:
        """Forget a slot's frames: the next is its stream's first, compared with a frame of -1, as published."""
        while slot >= len(self.seen):
            self._grow(max(2 * len(self.seen), SLOTS))
        self.seen[slot] = 0
        self.references[slot] = -1

    def _grow(self, slots: int) -> None:
        known = self.references
        self.references = torch.empty(slots, *known.shape[1:], device=known.device, memory_format=layout(known))
        self.references[: len(known)] = known
        self.seen += [0] * (slots - len(known))

    def __call__(self, frames: torch.Tensor, slots: list[int]) -> Changes:
        """The changes of float frames (K, S, 3, H, W) of the streams in these slots, which are now remembered."""
        if layout(frames[0]) != layout(self.references):
            self.references = self.references.contiguous(memory_format=layout(frames[0]))
        whole, starting = self._advance(len(frames), slots)
        return Changes(*self._find(frames, slots, whole), slots, starting)

    def _advance(self, frames: int, slots: list[int]) -> tuple[list[list[bool]], list[int]]:
        """Count the next K frames of these streams: which are computed as a whole (K, S), and who starts."""
        whole = [[self._is_whole(slot, k) for slot in slots] for k in range(frames)]
        starting = [slot for slot in slots if self.seen[slot] == 0]
        for slot in slots:
            self.seen[slot] += frames
        return whole, starting

    def _is_whole(self, slot: int, ahead: int) -> bool:
        """Whether a stream's frame after `ahead` others is computed as a whole."""
        number, every = self.seen[slot] + ahead, self.settings.keyframe_every
        first = number == 0 and self.settings.reference == "hold"
        return first or (every > 0 and number > 0 and number % every == 0)

    def _find(self, frames: torch.Tensor, slots: list[int], whole: list[list[bool]]) -> Found:
        if self.settings.reference == "previous":
            return self._against_previous(frames, slots, whole)
        return self._against_held(frames, slots, whole)

    def _against_previous(self, frames: torch.Tensor, slots: list[int], whole: list[list[bool]]) -> Found:
        masks = [self._changed(frames[0], rows_of(self.references, slots), whole[0])[None]]
        if len(frames) > 1:
            later = self._changed(frames[1:].flatten(0, 1), frames[:-1].flatten(0, 1), sum(whole[1:], []))
            masks.append(later.unflatten(0, (-1, len(slots))))
        self._remember(slots, frames[-1])
        mask = torch.cat(masks)
        return mask, self._pixels(frames.flatten(0, 1), mask.flatten(0, 1))

    def _against_held(self, frames: torch.Tensor, slots: list[int], whole: list[list[bool]]) -> Found:
        held = rows_of(self.references, slots)  # a view where the slots are neighbours
        masks, pixels = [], []
        for frame, all_of in zip(frames, whole, strict=True):
            masks.append(mask := self._changed(frame, held, all_of))
            pixels.append(self._pixels(frame, mask, held))
        self._remember(slots, held)
        return torch.stack(masks), torch.cat(pixels)

    def _remember(self, slots: list[int], frames: torch.Tensor) -> None:
        rows = rows_of(self.references, slots)
        if rows.data_ptr() != frames.data_ptr():
            self.references[slots] = frames

    def _changed(self, frames: torch.Tensor, references: torch.Tensor, whole: list[bool]) -> torch.Tensor:
        """(B, 3, H, W) twice, B answers -> bool (B, N)."""
        if all(whole):
            return torch.ones(len(frames), len(self.order), dtype=torch.bool, device=frames.device)
        mask = self._compare(frames, references)
        if any(whole):
            mask[torch.tensor(whole, device=mask.device)] = True
        return mask

    def _compare(self, frames: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        mask = changed_patches(frames, references, self.patch, self.settings.gate, self.settings.threshold)
        return mask.flatten(1).index_select(1, self.order)

    def _pixels(self, frames: torch.Tensor, mask: torch.Tensor, held: torch.Tensor | None = None) -> torch.Tensor:
        """The marked patches of frames (B, 3, H, W), mask (B, N), as rows (R, p p 3); `held` receives them too."""
        where = mask.flatten().nonzero().squeeze(1)  # R
        if len(where) == mask.numel():
            if held is not None:
                held.copy_(frames)
            return nested_patches(frames, self.sides).flatten(0, 1)
        frame, place = where // mask.shape[1], self.order[where % mask.shape[1]]
        n = frames.shape[-1] // self.patch
        at = frame, place // n, place % n
        pixels = self._grid(frames)[at]  # R p p 3
        if held is not None:
            self._grid(held)[at] = pixels
        return pixels.flatten(1)

    def _grid(self, frames: torch.Tensor) -> torch.Tensor:
        """A view of frames by patch: (B, 3, H, W) -> (B, n, n, p, p, 3)."""
        grid = frames.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))  # B 3 n p n p
        return grid.permute(0, 2, 4, 3, 5, 1)


def layout(frames: torch.Tensor) -> torch.memory_format:
    """The order in memory of frames (B, 3, H, W): channels last, or not."""
    return torch.channels_last if frames.stride(1) == 1 else torch.contiguous_format
