"""What passes from one step of the data flow to the next.

T frames, H height, W width, C channels (3, R G B), V temporal views, U distinct frames, N clips, B videos.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Record:
    """One line of an index: a medium on disk and its label. `index` is its place in the index file, from 0."""

    index: int
    path: Path  # where to read
    name: str  # as it stands in the index file; used in every report
    label: int
    frames: int | None = None  # images in the folder `path`, by the index; None: the medium is a file


@dataclass(frozen=True)
class Failure:
    """A medium, or a part of it, that could not be read.

    `lost` is True when nothing of it could be used; False when frames were missing from an otherwise usable clip.
    """

    index: int
    name: str
    reason: str
    lost: bool = True


@dataclass(frozen=True)
class Crop:
    """A rectangle of a frame (pixels; may be fractional): its top left corner and size."""

    top: float
    left: float
    height: float
    width: float


@dataclass
class TrainSample:
    """NUM_SAMPLE augmented clips of one video."""

    record: Record
    clips: np.ndarray | None  # uint8 (NUM_SAMPLE, T, H, W, C); None: nothing could be read, see failures
    failures: list[Failure] = field(default_factory=list)


@dataclass
class TestVideo:
    """All views of one video without copying a frame twice: view v, crop c is
    `frames[frame_index[v], top:top + size, left:left + size]` with `top, left = corners[c]`.
    """

    __test__ = False  # not a pytest class

    record: Record
    frames: torch.Tensor | None  # uint8 (U, H, W, C); None: nothing could be read, see failures
    frame_index: torch.Tensor  # int64 (V, T)
    corners: list[tuple[int, int]]  # (top, left) of each crop
    size: int  # side of the square crops
    failures: list[Failure] = field(default_factory=list)

    def pin_memory(self) -> TestVideo:
        """The same video in page-locked memory."""
        return replace(self, frames=None if self.frames is None else self.frames.pin_memory())


@dataclass
class TrainBatch:
    """Clips of one process's part of a training batch, still uint8 on the host."""

    clips: torch.Tensor  # uint8 (N, T, H, W, C), N = videos x NUM_SAMPLE
    labels: torch.Tensor  # int64 (N,)
    names: list[str]  # of the batch's videos
    failures: list[Failure]

    def pin_memory(self) -> TrainBatch:
        """The same batch in page-locked memory."""
        return replace(self, clips=self.clips.pin_memory(), labels=self.labels.pin_memory())
