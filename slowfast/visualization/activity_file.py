"""event_activity.json: where and when event-driven inference computed the patches of each video.

Live runs rewrite it while frames arrive, so the many numbers are bytes in base64, which takes a tenth of the time:
``heat`` is uint8 (side, side), 255 for a patch that was computed in each frame; ``shares`` is uint16 (stages, B),
little-endian, in units of 1 / SHARE_LEVELS %, of the intervals that begin at the frames ``starts`` (B), at the times
``times`` (B) in the unit ``time_unit``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.utils.files import atomic_write_text
from slowfast.utils.json_files import to_json
from slowfast.visualization.mistakes import jpeg

ACTIVITY_FILE = "event_activity.json"
MAX_BINS = 100  # points over time per video: curves of several stages stay legible
TIME_DIGITS = 6  # significant digits of a time
HEAT_LEVELS, SHARE_LEVELS = 255, 500  # of a share of 1, and per percent
_TIME_UNITS = (("h", 3600.0), ("min", 60.0), ("s", 1.0))
_UNITS_SHOWN = 3.0  # smallest duration of an axis in a unit; 1 s is always shown in seconds


@dataclass(frozen=True)
class PatchActivity:
    """Activity of a video.

    Attributes:
        name: Name of the video or camera.
        image: First frame, as the network sees it, uint8 (P, P, 3) RGB.
        heat: Share of the frames in which each patch of the first stage was computed, (n, n) in [0, 1].
        starts: First frame of each of B intervals, (B,).
        seconds: Time of these frames in the video, or since a live source was opened, (B,).
        shares: Patches computed per stage in percent, mean over each interval, (B, stages).
        frames: Number of frames.
    """

    name: str
    image: np.ndarray
    heat: np.ndarray
    starts: np.ndarray
    seconds: np.ndarray
    shares: np.ndarray
    frames: int

    @property
    def times(self) -> tuple[np.ndarray, str]:
        """Times (B,) of the intervals, in seconds, minutes or hours, and that unit: s, min or h."""
        longest = float(self.seconds.max(initial=0.0))
        unit, size = next((one for one in _TIME_UNITS if longest >= _UNITS_SHOWN * one[1]), _TIME_UNITS[-1])
        return self.seconds / size, unit

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        first, shares = _merged(self.starts, self.shares, self.frames)
        times, unit = self.times
        levels = np.rint(HEAT_LEVELS * np.clip(self.heat, 0, 1)).astype(np.uint8)
        return {
            "name": self.name,
            "frames": self.frames,
            "starts": self.starts[first].tolist(),
            "times": [float(f"{time:.{TIME_DIGITS}g}") for time in times[first]],
            "time_unit": unit,
            "stages": shares.shape[1],
            "shares": _base64(np.rint(SHARE_LEVELS * shares.T).astype("<u2").tobytes()),
            "side": len(levels),
            "heat": _base64(levels.tobytes()),
            "image": _base64(jpeg(self.image)),
        }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _merged(starts: np.ndarray, shares: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Merge neighboring intervals so that at most MAX_BINS are left; their means are weighted by their frames.

    Returns:
        The first of the intervals that make up each one, and the shares.
    """
    size = max(-(-len(starts) // MAX_BINS), 1)
    first = np.arange(0, len(starts), size)
    counts = np.diff(np.append(starts, frames))
    sums = np.add.reduceat(shares * counts[:, None], first)
    return first, sums / np.add.reduceat(counts, first)[:, None]


def write_activity(videos: Iterable[PatchActivity], path: Path) -> None:
    """Write event_activity.json, completely or not at all."""
    atomic_write_text(path, to_json([video.as_dict() for video in videos]) + "\n", "OUTPUT_DIR")
