"""Sliding windows over a video: their lengths in seconds or clips, and their frames.

A video of a variable frame rate is resampled to its nominal rate first: each frame is shown until the next one, as a
player does.

Notation: n frames of a file; N of the video at a constant rate, L of a window; V views of T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.sampling import SpanSampling, TemporalSampling
from slowfast.errors import UserError

_ROUNDING = 1e-6  # frames
_MAX_FRAMES = 2**27  # limit for videos of constant rate: 50 days at 30 frames/s


@dataclass(frozen=True)
class Length:
    """Length of a window or step.

    Attributes:
        value: Number of units.
        clips: True if the unit is the duration of a clip; otherwise seconds.
    """

    value: float
    clips: bool = False

    def seconds(self, clip: float | None) -> float:
        """Return the length in seconds.

        Args:
            clip: Duration of a clip in seconds; None if clips have none.

        Raises:
            UserError: If clips are the unit and have no duration.
        """
        if not self.clips:
            return self.value
        if clip is None:
            raise UserError(
                "--window: this dataset samples a clip from all of a window, so a clip has no duration. Give --window "
                "and --step in seconds, such as --window 4"
            )
        return self.value * clip


ONE_CLIP = Length(1, clips=True)


@dataclass(frozen=True)
class WindowOptions:
    """Options of a sliding window.

    Attributes:
        window: Length of a window.
        step: Distance between the starts of two windows; None for the length of a window, so that they do not overlap.
        merge: Merge neighboring windows of one class into one segment.
    """

    window: Length = ONE_CLIP
    step: Length | None = None
    merge: bool = False


def clip_seconds(temporal: TemporalSampling) -> float | None:
    """Return the duration of a clip in seconds; None if it depends on the video."""
    if not isinstance(temporal, SpanSampling):
        return None
    return temporal.sampling_rate * temporal.num_frames / temporal.target_fps


@dataclass(frozen=True)
class WindowLayout:
    """Window and step in seconds, for any video.

    Attributes:
        window: Length of a window in seconds.
        step: Distance between the starts of two windows in seconds.
    """

    window: float
    step: float

    @classmethod
    def from_options(cls, options: WindowOptions, temporal: TemporalSampling) -> WindowLayout:
        """Convert clips to seconds. Raises UserError if clips have no duration."""
        clip = clip_seconds(temporal)
        window = options.window.seconds(clip)
        return cls(window, window if options.step is None else options.step.seconds(clip))

    def frames(self, fps: float) -> int:
        """Return the number of frames of a window, L: as many as fit, so that a clip has only one position."""
        return max(1, math.floor(self.window * fps + _ROUNDING))

    def plan(self, times: np.ndarray, fps: float) -> WindowPlan:
        """Return the windows of a video.

        Args:
            times: Display times of the frames in seconds after the first, (n,).
            fps: Frame rate of the video in frames/s.

        Raises:
            DecodeError: If a window is longer than the video.
        """
        source = at_constant_rate(times, fps)
        length = self.frames(fps)
        if length > len(source):
            raise DecodeError(
                f"a window of {self.window:g} s is longer than the video, which has {len(source) / fps:g} s. Use a "
                "shorter --window"
            )
        return WindowPlan(source, window_starts(len(source), length, max(self.step * fps, 1.0)), length, fps)


@dataclass(frozen=True)
class WindowPlan:
    """Windows of a video.

    Attributes:
        source: Frame of the file that each frame at the constant rate shows, int64 (N,), non-descending.
        starts: First frame of each window at the constant rate, int64 (W,), ascending.
        length: Frames of a window, L.
        fps: Constant frame rate in frames/s.
    """

    source: np.ndarray
    starts: np.ndarray
    length: int
    fps: float

    def __len__(self) -> int:
        return len(self.starts)

    def seconds(self, window: int) -> tuple[float, float]:
        """Return the start and end of a window in seconds after the first frame."""
        start = int(self.starts[window])
        return start / self.fps, (start + self.length) / self.fps

    def frames(self, window: int, rows: np.ndarray) -> np.ndarray:
        """Return frames of the file.

        Args:
            window: Number of the window.
            rows: Frames counted from the start of the window, int64 (...).
        """
        shown: np.ndarray = self.source[self.starts[window] + rows]
        return shown

    def needed(self, rows: np.ndarray) -> np.ndarray:
        """Return a mask of the frames of the file that any window shows, bool (n,).

        Args:
            rows: Frames that each window shows, counted from its start, int64 (...).
        """
        mask = np.zeros(int(self.source[-1]) + 1, dtype=bool)
        for row in np.unique(rows):  # one by one, because all together may take much memory
            mask[self.source[self.starts + row]] = True
        return mask

    def most_held(self, rows: np.ndarray) -> int:
        """Return an upper bound of the number of frames in memory at the same time."""
        distinct = np.unique(rows)
        span = int(distinct[-1] - distinct[0]) + 1
        step = max(int(self.starts[1] - self.starts[0]) - 1, 1) if len(self) > 1 else span  # starts are rounded
        return min(span, len(distinct) * (math.ceil(span / step) + 1))  # one more for the last window


def at_constant_rate(times: np.ndarray, fps: float) -> np.ndarray:
    """Return which frame of a file is shown at each frame of a constant rate, int64 (N,), non-descending.

    All frames are kept if none of them is shifted by more than half a frame, so that N = n.

    Args:
        times: Display times of the frames in seconds after the first, (n,).
        fps: Constant frame rate in frames/s.

    Raises:
        DecodeError: If the timestamps of the file are implausibly far apart.
    """
    order = np.arange(len(times))
    if np.abs(times - order / fps).max(initial=0) <= 0.5 / fps:
        return order
    count = times[-1] * fps + 1
    if count > _MAX_FRAMES:
        raise DecodeError(f"the timestamps span {times[-1] / 86400:.0f} days, too long for a sliding window")
    middles = (np.arange(max(round(count), 1)) + 0.5) / fps
    return np.searchsorted(times, middles, side="right") - 1


def window_starts(frames: int, length: int, step: float) -> np.ndarray:
    """Return the first frame of each window, int64 (W,), ascending.

    Window k starts at frame k * step, rounded. If the video continues where the last complete window ends, one more
    window of full length ends with the video.

    Args:
        frames: Frames of the video, N, at least `length`.
        length: Frames of a window, L.
        step: Distance of two starts in frames, at least 1; it may be fractional.
    """
    # Integer arithmetic, because a float product that should end in .5 may be rounded to either side.
    exact = Fraction(step).limit_denominator(10**6)
    double = 2 * exact.denominator
    numbers = np.arange(int(frames / step) + 2, dtype=np.int64)
    starts = (2 * exact.numerator * numbers + exact.denominator) // double
    complete = starts[starts + length <= frames]
    following = starts[len(complete)]  # start of the first incomplete window
    if complete[-1] + length < frames and following < frames:
        return np.append(complete, frames - length)
    return complete
