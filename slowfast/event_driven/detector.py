"""Detection of changed patches. It depends on pixels only, so it may run ahead of the network.

Notation: K frames per stream, S streams, B images, H x W pixels, N = n x n patches of p x p pixels in nested order
(models/evmlp.py), R changed patches in total. *Slot*: number of an open stream, index of its stored state.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch

from slowfast.event_driven.network import PatchNetwork
from slowfast.models.evmlp import nested_patches

# Reduction of the absolute differences of a patch that is compared with the threshold: the maximum, as published, or
# the mean.
GATES: dict[str, Callable[[torch.Tensor, int], torch.Tensor]] = {"any": torch.amax, "mean": torch.mean}
INITIAL_SLOTS = 4  # initial capacity for streams
MaskAndPixels = tuple[torch.Tensor, torch.Tensor]  # fields of Changes


@dataclass(frozen=True)
class GateSettings:
    """Settings of the change detector.

    Args:
        threshold: Threshold in units of the normalized frame.
        reference: ``previous`` or ``hold``.
        gate: A name in GATES.
        keyframe_every: Interval between frames computed in full; 0 for never.
    """

    threshold: float
    reference: str
    gate: str
    keyframe_every: int


@dataclass(frozen=True)
class Changes:
    """Patches that the network has to compute, ordered by time, stream and patch."""

    mask: torch.Tensor  # bool (K, S, N)
    pixels: torch.Tensor  # (R, p p 3): the changed patches
    slots: list[int]  # slots of the S streams
    starting: list[int]  # slots among them whose streams begin here


class ChangeDetector:
    """Change detector that compares frames with the reference frame of each stream.

    Attributes:
        seen: Number of frames so far per slot.
        references: Reference frames, (slots, 3, H, W).
    """

    def __init__(self, network: PatchNetwork, settings: GateSettings) -> None:
        self.settings = settings
        self.patch, self.sides, self.order = network.patch, network.sides, network.order
        self.seen: list[int] = []
        self.references = torch.empty(0, 3, network.side, network.side, device=network.device)

    def reset(self, slot: int) -> None:
        """Start a new stream in a slot. As published, its first frame is compared with a frame of -1."""
        while slot >= len(self.seen):
            self._grow(max(2 * len(self.seen), INITIAL_SLOTS))
        self.seen[slot] = 0
        self.references[slot] = -1

    def _grow(self, slots: int) -> None:
        old = self.references
        self.references = torch.empty(slots, *old.shape[1:], device=old.device, memory_format=layout(old))
        self.references[: len(old)] = old
        self.seen += [0] * (slots - len(old))

    def __call__(self, frames: torch.Tensor, slots: list[int]) -> Changes:
        """Detect the changes of float frames (K, S, 3, H, W) of these slots and update the references."""
        if layout(frames[0]) != layout(self.references):
            self.references = self.references.contiguous(memory_format=layout(frames[0]))
        full, starting = self._advance(len(frames), slots)
        return Changes(*self._find(frames, slots, full), slots, starting)

    def _advance(self, frames: int, slots: list[int]) -> tuple[list[list[bool]], list[int]]:
        """Count the next K frames; return a mask of those computed in full (K, S), and the slots of new streams."""
        full = [[self._is_full(slot, k) for slot in slots] for k in range(frames)]
        starting = [slot for slot in slots if self.seen[slot] == 0]
        for slot in slots:
            self.seen[slot] += frames
        return full, starting

    def _is_full(self, slot: int, ahead: int) -> bool:
        """Return whether the frame that is `ahead` frames after the next one of a stream is computed in full."""
        number, every = self.seen[slot] + ahead, self.settings.keyframe_every
        first = number == 0 and self.settings.reference == "hold"
        return first or (every > 0 and number > 0 and number % every == 0)

    def _find(self, frames: torch.Tensor, slots: list[int], full: list[list[bool]]) -> MaskAndPixels:
        if self.settings.reference == "previous":
            return self._against_previous(frames, slots, full)
        return self._against_held(frames, slots, full)

    def _against_previous(self, frames: torch.Tensor, slots: list[int], full: list[list[bool]]) -> MaskAndPixels:
        masks = [self._changed(frames[0], rows_of(self.references, slots), full[0])[None]]
        if len(frames) > 1:
            later = self._changed(frames[1:].flatten(0, 1), frames[:-1].flatten(0, 1), sum(full[1:], []))
            masks.append(later.unflatten(0, (-1, len(slots))))
        self._store(slots, frames[-1])
        mask = torch.cat(masks)
        return mask, self._pixels(frames.flatten(0, 1), mask.flatten(0, 1))

    def _against_held(self, frames: torch.Tensor, slots: list[int], full: list[list[bool]]) -> MaskAndPixels:
        held = rows_of(self.references, slots)  # a view if the slots are consecutive
        masks, pixels = [], []
        for frame, full_streams in zip(frames, full, strict=True):
            masks.append(mask := self._changed(frame, held, full_streams))
            pixels.append(self._pixels(frame, mask, held))
        self._store(slots, held)
        return torch.stack(masks), torch.cat(pixels)

    def _store(self, slots: list[int], frames: torch.Tensor) -> None:
        rows = rows_of(self.references, slots)
        if rows.data_ptr() != frames.data_ptr():
            self.references[slots] = frames

    def _changed(self, frames: torch.Tensor, references: torch.Tensor, full: list[bool]) -> torch.Tensor:
        """Compare images (B, 3, H, W) with references of that shape; mark all of full frames -> bool (B, N)."""
        if all(full):
            return torch.ones(len(frames), len(self.order), dtype=torch.bool, device=frames.device)
        mask = self._compare(frames, references)
        if any(full):
            mask[torch.tensor(full, device=mask.device)] = True
        return mask

    def _compare(self, frames: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        mask = changed_patches(frames, references, self.patch, self.settings.gate, self.settings.threshold)
        return mask.flatten(1).index_select(1, self.order)

    def _pixels(self, frames: torch.Tensor, mask: torch.Tensor, held: torch.Tensor | None = None) -> torch.Tensor:
        """Gather the pixels (R, p p 3) of the patches that a mask (B, N) marks in images (B, 3, H, W).

        They are also copied to `held`, images of the same shape.
        """
        indices = mask.flatten().nonzero().squeeze(1)  # R
        if len(indices) == mask.numel():
            if held is not None:
                held.copy_(frames)
            return nested_patches(frames, self.sides).flatten(0, 1)
        image, patch = indices // mask.shape[1], self.order[indices % mask.shape[1]]
        n = frames.shape[-1] // self.patch
        at = image, patch // n, patch % n
        pixels = self._grid(frames)[at]  # R p p 3
        if held is not None:
            self._grid(held)[at] = pixels
        return pixels.flatten(1)

    def _grid(self, frames: torch.Tensor) -> torch.Tensor:
        """View images by patch: (B, 3, H, W) -> (B, n, n, p, p, 3)."""
        grid = frames.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))  # B 3 n p n p
        return grid.permute(0, 2, 4, 3, 5, 1)


def changed_patches(
    frames: torch.Tensor, references: torch.Tensor, patch: int, gate: str, threshold: float
) -> torch.Tensor:
    """Find the patches that differ from their reference by more than the threshold.

    A NaN difference counts as a change. With threshold 0 every patch with a changed pixel is changed.

    Args:
        frames: Images (B, C, H, W).
        references: References, of the same shape.
        patch: Side of a patch in pixels.
        gate: A name in GATES.
        threshold: Threshold in the unit of the frames.

    Returns:
        Mask of the changed patches in row-major order, bool (B, n, n).
    """
    reduce = GATES[gate]
    change = torch.sub(frames, references).abs_()
    b, c, h, w = change.shape
    if change.is_contiguous():
        rows = reduce(reduce(change.view(b, c, h // patch, patch, w), 3), 1)  # B n W
        patches = reduce(rows.view(b, h // patch, w // patch, patch), 3)
    else:  # channels last
        rows = reduce(change.permute(0, 2, 3, 1).reshape(b, h // patch, patch, w * c), 2)  # B n (W C)
        patches = reduce(rows.view(b, h // patch, w // patch, patch * c), 3)
    return ~(patches <= threshold)


def rows_of(table: torch.Tensor, slots: list[int]) -> torch.Tensor:
    """Return table[slots]: a view if the slots are consecutive, else a copy."""
    first = slots[0]
    if slots == list(range(first, first + len(slots))):
        return table[first : first + len(slots)]
    return table[slots]


def layout(frames: torch.Tensor) -> torch.memory_format:
    """Return the memory format of images (B, 3, H, W): channels last or contiguous."""
    return torch.channels_last if frames.stride(1) == 1 else torch.contiguous_format


class Slots:
    """Slot numbers of the open streams; those of closed streams are reused."""

    def __init__(self) -> None:
        self.of: dict[Hashable, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.of) + len(self._free)

    def open(self, stream: Hashable) -> int:
        """Return the slot of a new stream: the lowest free one."""
        slot = self._free.pop() if self._free else len(self.of)
        self.of[stream] = slot
        return slot

    def close(self, stream: Hashable) -> None:
        """Free the slot of a stream."""
        self._free.append(self.of.pop(stream))
        self._free.sort(reverse=True)
