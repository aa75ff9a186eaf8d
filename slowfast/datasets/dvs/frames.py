"""Event recordings as frames for video networks.

* ``counts``: number of events in equal parts of the duration.
* ``voxels``: the same with linear interpolation between the two nearest parts (Zhu et al. 2019).

Notation: T frames of H x W pixels, n events, U distinct frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from slowfast.datasets.decode.reader import Decoded, distinct_frames
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import clean_events
from slowfast.datasets.dvs.sample import EventColumns

FRAMES = 6
BACKGROUND, BRIGHTER, DARKER = (255, 255, 255), (200, 60, 40), (40, 80, 190)
COUNTS, VOXELS = "counts", "voxels"
FRAME_KINDS = (COUNTS, VOXELS)


class EventFramesReader:
    """Recording as frames with the interface of a video: R are ON events, B OFF events, G the mean of both.

    Args:
        path: Path of the recording.
        sensor: Sensor height and width in pixels.
        time_unit: Duration of a timestamp tick in seconds.
        num_frames: Number of frames.
        kind: ``counts`` or ``voxels``.
        gain: Gray levels per event; pixels saturate at 255.

    Raises:
        DecodeError: If the recording cannot be read.
    """

    fps = 1.0  # without meaning: views take all frames

    def __init__(
        self, path: Path, sensor: tuple[int, int], time_unit: float, num_frames: int, kind: str, gain: float
    ) -> None:
        recording = Recording(path)
        self.events, _ = clean_events(recording.take(slice(None)), sensor, recording.time_unit(time_unit))
        self.num_frames, self.kind, self.gain = num_frames, kind, gain
        self.height, self.width = sensor

    def read(self, indices: Any) -> Decoded:
        """Return the frames at `indices`, of any shape and in any order."""
        wanted, rows = distinct_frames(indices, self.num_frames)
        grids = event_frames(self.events, (self.height, self.width), self.num_frames, self.kind)[wanted]
        colors = np.stack([grids[:, 1], grids.mean(1), grids[:, 0]], -1)  # U H W 3
        return Decoded(np.rint((colors * self.gain).clip(0, 255)).astype(np.uint8), rows, None)

    def close(self) -> None:
        """Do nothing: no file is open."""

    def __enter__(self) -> EventFramesReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def event_frames(events: EventColumns, sensor: tuple[int, int], frames: int, kind: str) -> np.ndarray:
    """Count the events (or interpolation weights, for voxels) per frame, polarity and pixel: float32 (T, 2, H, W)."""
    height, width = sensor
    t = events.t - events.t[0]
    position = t / max(float(t[-1]), 1e-9) * frames  # in [0, T]
    pixel = (events.p * height + events.y) * width + events.x
    size = 2 * height * width
    if kind == COUNTS:
        part = np.minimum(position.astype(np.int64), frames - 1)
        grid = np.bincount(part * size + pixel, minlength=frames * size)
    else:
        position = (position - 0.5).clip(0, frames - 1)  # from the center of the first part to that of the last
        first = np.floor(position).astype(np.int64)
        share = position - first
        grid = np.bincount(first * size + pixel, 1 - share, frames * size)
        after = np.minimum(first + 1, frames - 1)
        grid = grid + np.bincount(after * size + pixel, share, frames * size)
    return grid.astype(np.float32).reshape(frames, 2, height, width)


@dataclass(frozen=True)
class EveryFrame:
    """Sampling of clips that consist of all frames of a recording."""

    num_frames: int

    def train(self, n: int, fps: float, rng: np.random.Generator) -> np.ndarray:
        """Return the frame indices of a training clip, int64 (T,)."""
        return np.arange(self.num_frames)

    def views(self, n: int, fps: float, views: int) -> np.ndarray:
        """Return the frame indices of V equal views, int64 (V, T)."""
        return np.tile(np.arange(self.num_frames), (views, 1))


def accumulate(
    x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray, sensor: tuple[int, int], frames: int = FRAMES
) -> np.ndarray:
    """Draw events (n,) in T equal parts of their duration, ON events in red, OFF events in blue.

    Returns:
        RGB images, uint8 (T, H, W, 3).
    """
    images = np.full((frames, *sensor, 3), BACKGROUND, np.uint8)
    if not len(t):
        return images
    span = max(float(t.max() - t.min()), np.finfo(np.float32).tiny)
    part = np.minimum((t - t.min()) / span * frames, frames - 1).astype(np.int64)
    images[part, y, x] = np.where(p[:, None] > 0, BRIGHTER, DARKER)
    return images
