"""Event recordings as frames for video networks.

The duration of a recording is divided into T equal parts. Per polarity and pixel:

* ``counts``: number of events in each part.
* ``voxels``: the same with linear interpolation between the centers of the two nearest parts.
* ``time_surface``: exp(-(e - t) / decay) of the time t of the latest event up to the end e of each part, 0 without one
  (Lagorce et al., "HOTS: a hierarchy of event-based time-surfaces", TPAMI 2017, equation 3).
* ``decayed``: sum of exp(-(e - t) / decay) over all events up to the end e of each part (Sironi et al., "HATS:
  histograms of averaged time surfaces", CVPR 2018, equation 4).

Per pixel:

* ``signed_voxels``: sum of s max(0, 1 - |k - (T - 1) t|) over the events, for frame k, sign s = -1 or 1 and times t
  from 0 to 1 (Zhu et al., "Unsupervised event-based learning of optical flow, depth, and egomotion", CVPR 2019,
  equations 1 and 2).

Notation: T frames of H x W pixels, C channels (OFF and ON, or one), n events, U distinct frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from slowfast.datasets.decode.reader import Decoded, distinct_frames
from slowfast.datasets.dvs.recording import Recording, clean_events
from slowfast.datasets.dvs.sample import EventColumns

FRAMES = 6
BACKGROUND, BRIGHTER, DARKER = (255, 255, 255), (200, 60, 40), (40, 80, 190)
COUNTS, VOXELS, SIGNED_VOXELS, TIME_SURFACE, DECAYED = "counts", "voxels", "signed_voxels", "time_surface", "decayed"
FRAME_KINDS = (COUNTS, VOXELS, SIGNED_VOXELS, TIME_SURFACE, DECAYED)
MIDDLE_GRAY = 128.0  # gray level of 0 for signed values


class EventFramesReader:
    """Recording as frames with the interface of a video.

    R are ON events, B OFF events and G is the mean of both. Signed frames are gray, and 0 is the gray level 128.

    Args:
        path: Path of the recording.
        sensor: Sensor height and width in pixels.
        time_unit: Duration of a timestamp tick in seconds.
        num_frames: Number of frames.
        kind: Content of the frames, in FRAME_KINDS.
        gain: Gray levels per event, or of a surface of 1; pixels saturate at 0 and 255.
        decay: Decay constant of surfaces in microseconds.
        stream: Name of the stream of a file with several.

    Raises:
        DecodeError: If the recording cannot be read.
    """

    fps = 1.0  # arbitrary, because views take all frames

    def __init__(
        self,
        path: Path,
        sensor: tuple[int, int],
        time_unit: float,
        num_frames: int,
        kind: str,
        gain: float,
        decay: float = 50_000.0,
        stream: str = "",
    ) -> None:
        recording = Recording(path, stream)
        self.events, _ = clean_events(recording.take(slice(None)), sensor, recording.time_unit(time_unit))
        self.num_frames, self.kind, self.gain, self.decay = num_frames, kind, gain, decay
        self.height, self.width = sensor

    def read(self, indices: Any) -> Decoded:
        """Return the frames at `indices`, of any shape and in any order."""
        wanted, rows = distinct_frames(indices, self.num_frames)
        grids = event_frames(self.events, (self.height, self.width), self.num_frames, self.kind, self.decay)[wanted]
        return Decoded(frame_colors(grids, self.kind, self.gain), rows, None)

    def close(self) -> None:
        """Do nothing, because no file is open."""

    def __enter__(self) -> EventFramesReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def frame_colors(grids: np.ndarray, kind: str, gain: float) -> np.ndarray:
    """Convert the frames of :func:`event_frames` to images, uint8 (T, H, W, 3)."""
    colors = gain * np.stack([grids[:, -1], grids.mean(1), grids[:, 0]], -1)
    if kind == SIGNED_VOXELS:
        colors += MIDDLE_GRAY
    return np.rint(colors.clip(0, 255)).astype(np.uint8)


def event_frames(
    events: EventColumns,
    sensor: tuple[int, int],
    frames: int,
    kind: str,
    decay: float = 50_000.0,
    span: tuple[float, float] | None = None,
) -> np.ndarray:
    """Compute the frames of a recording, with the formulas above.

    Args:
        events: Events in ascending order of time, at least one.
        sensor: Sensor height and width in pixels.
        frames: Number of frames.
        kind: Content of the frames, in FRAME_KINDS.
        decay: Decay constant of surfaces in microseconds.
        span: Start and duration in microseconds that the frames cover; None for the first to the last event.

    Returns:
        Frames, float32 (T, C, H, W); the channels are OFF and ON, or one for signed voxels.
    """
    height, width = sensor
    start, duration = (float(events.t[0]), float(events.t[-1] - events.t[0])) if span is None else span
    t, duration = events.t - start, max(duration, 1e-9)
    position = t / duration * frames  # in [0, T]
    channels = 1 if kind == SIGNED_VOXELS else 2
    size = channels * height * width
    pixel = events.y * width + events.x + (0 if channels == 1 else events.p * height * width)
    if kind in (TIME_SURFACE, DECAYED):
        parts = _parts(position, frames)
        grid = _surfaces(t, pixel, parts, duration / frames, size, decay, latest=kind == TIME_SURFACE)
    elif kind == COUNTS:
        grid = np.empty((frames, size), np.float32)
        for frame, part in zip(grid, _parts(position, frames), strict=True):
            frame[:] = np.bincount(pixel[part], minlength=size)
    elif kind == VOXELS:
        # From the center of the first part to that of the last.
        grid = _interpolate((position - 0.5).clip(0, frames - 1), pixel, np.ones(len(t)), frames, size)
    else:
        grid = _interpolate(t / duration * (frames - 1), pixel, 2.0 * events.p - 1, frames, size)
    return grid.reshape(frames, channels, height, width)


def _parts(position: np.ndarray, frames: int) -> list[slice]:
    """Return the events of each frame k: those with ascending positions (n,) from k to k + 1; the last has the rest."""
    ends = [*np.searchsorted(position, np.arange(1, frames)), len(position)]
    return [slice(first, last) for first, last in zip([0, *ends], ends, strict=False)]


def _interpolate(position: np.ndarray, pixel: np.ndarray, weights: np.ndarray, frames: int, size: int) -> np.ndarray:
    """Distribute each event over the two frames around its position, from 0 to T - 1: float32 (T, size)."""
    after = weights * (position - np.floor(position))
    before = weights - after
    grid = np.empty((frames, size), np.float32)
    carried: np.ndarray = np.zeros(size)
    for frame, part in zip(grid, _parts(position, frames), strict=True):
        frame[:] = np.bincount(pixel[part], before[part], size) + carried
        carried = np.bincount(pixel[part], after[part], size)
    return grid


def _surfaces(
    t: np.ndarray, pixel: np.ndarray, parts: Sequence[slice], step: float, size: int, decay: float, *, latest: bool
) -> np.ndarray:
    """Compute decayed surfaces at the end of each part.

    Args:
        t: Times from the start in microseconds, (n,).
        pixel: Index of channel and pixel of each event, (n,).
        parts: Events of each of the T parts.
        step: Duration of a part in microseconds.
        size: Number of channels and pixels.
        decay: Decay constant in microseconds.
        latest: Whether only the latest event of a pixel counts, instead of the sum over all of them.

    Returns:
        Surfaces, float32 (T, size).
    """
    surfaces = np.empty((len(parts), size), np.float32)
    state = np.full(size, -np.inf) if latest else np.zeros(size)  # time of the latest event, or the sum
    for number, part in enumerate(parts):
        end = step * (number + 1)
        if latest:
            state[pixel[part]] = t[part]  # for repeated pixels the last value counts
            surfaces[number] = np.exp((state - end) / decay)
        else:
            state *= np.exp(-step / decay)
            state += np.bincount(pixel[part], np.exp((t[part] - end) / decay), size)
            surfaces[number] = state
    return surfaces


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
