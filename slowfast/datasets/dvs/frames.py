"""Event recordings as frames, for networks of videos: a reader like a video's.

counts   the events of equal parts of the recording's time
voxels   the same, each event shared by the two parts whose middles it lies between, by its distance (Zhu et al. 2019)

T frames, H height, W width, n events.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from slowfast.datasets.decode.reader import Decoded, distinct_frames
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import whole
from slowfast.datasets.dvs.sample import EventColumns

FRAMES = 6
BACKGROUND, BRIGHTER, DARKER = (255, 255, 255), (200, 60, 40), (40, 80, 190)


def accumulate(
    x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, sensor: tuple[int, int], frames: int = FRAMES
) -> np.ndarray:
    """The events (n,) of equal parts of the time, red where it grew brighter, blue where darker: uint8 (T, H, W, 3)."""
    pictures = np.full((frames, *sensor, 3), BACKGROUND, np.uint8)
    if not len(t):
        return pictures
    span = max(float(t.max() - t.min()), np.finfo(np.float32).tiny)
    part = np.minimum((t - t.min()) / span * frames, frames - 1).astype(np.int64)
    pictures[part, y, x] = np.where(p[:, None] > 0, BRIGHTER, DARKER)
    return pictures


COUNTS, VOXELS = "counts", "voxels"
FRAME_KINDS = (COUNTS, VOXELS)


class EventFramesReader:
    """All of a recording as `num_frames` frames: R brighter, B darker, G half of both, uint8."""

    fps = 1.0  # the recording's time has no rate: views take all frames

    def __init__(
        self, path: Path, sensor: tuple[int, int], time_unit: float, num_frames: int, kind: str, gain: float
    ) -> None:
        """gain: grey levels an event, at most 255 in all. Raises DecodeError where the recording cannot be read."""
        self.events, _ = whole(Recording(path).take(slice(None)), sensor, time_unit)
        self.num_frames, self.kind, self.gain = num_frames, kind, gain
        self.height, self.width = sensor

    def read(self, indices: Any) -> Decoded:
        """The frames of these numbers."""
        wanted, rows = distinct_frames(indices, self.num_frames)
        grids = event_frames(self.events, (self.height, self.width), self.num_frames, self.kind)[wanted]
        colours = np.stack([grids[:, 1], grids.mean(1), grids[:, 0]], -1)  # U H W 3
        return Decoded(np.rint((colours * self.gain).clip(0, 255)).astype(np.uint8), rows, None)

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> EventFramesReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def event_frames(events: EventColumns, sensor: tuple[int, int], frames: int, kind: str) -> np.ndarray:
    """Events (shares of them, for voxels) a frame, polarity and pixel: float32 (T, 2, H, W)."""
    height, width = sensor
    t = events.t - events.t[0]
    place = t / max(float(t[-1]), 1e-9) * frames  # in [0, T]
    pixel = (events.p * height + events.y) * width + events.x
    size = 2 * height * width
    if kind == COUNTS:
        part = np.minimum(place.astype(np.int64), frames - 1)
        grid = np.bincount(part * size + pixel, minlength=frames * size)
    else:
        place = (place - 0.5).clip(0, frames - 1)  # from the middle of the first part to that of the last
        first = np.floor(place).astype(np.int64)
        share = place - first
        grid = np.bincount(first * size + pixel, 1 - share, frames * size)
        after = np.minimum(first + 1, frames - 1)
        grid = grid + np.bincount(after * size + pixel, share, frames * size)
    return grid.astype(np.float32).reshape(frames, 2, height, width)


@dataclass(frozen=True)
class EveryFrame:
    """Clips of all frames that a recording was made into."""

    num_frames: int

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """int64 (T,)."""
        return np.arange(self.num_frames)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """int64 (V, T), all the same."""
        return np.tile(np.arange(self.num_frames), (views, 1))
