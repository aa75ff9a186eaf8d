"""Sensor size of recordings that do not state it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.recording import Recording

# Height and width of common event cameras, by size: DVS128, DAVIS240, ATIS, DAVIS346, Gen3 and DVXplorer, EVK4.
SENSORS = ((128, 128), (180, 240), (240, 304), (260, 346), (480, 640), (720, 1280))
_RECORDINGS = 20  # maximum number of recordings to open
_EVENTS = 10_000  # events inspected per recording, evenly spaced
_INSIDE = 0.99  # minimum fraction of events inside the sensor; a few coordinates may be wrong


def guess_sensor(paths: Iterable[Path]) -> tuple[int, int] | None:
    """Return the smallest common sensor that contains the events of recordings.

    Args:
        paths: Recordings; the first readable ones are opened.

    Returns:
        Height and width in pixels; the extent of the events if no common sensor fits; None if no recording is
        readable.
    """
    sides: list[tuple[float, float]] = []  # height and width of each recording
    for path in paths:
        try:
            recording = Recording(path)
            chosen = np.unique(np.linspace(0, recording.n - 1, min(recording.n, _EVENTS)).astype(np.int64))
            events = recording.take(chosen)
            height, width = (float(np.quantile(events[axis], _INSIDE)) + 1 for axis in "yx")
            sides.append((height, width))
        except (DecodeError, OSError):
            continue
        if len(sides) == _RECORDINGS:
            break
    if not sides:
        return None
    rows, columns = (int(max(side)) for side in zip(*sides, strict=True))
    return next((sensor for sensor in SENSORS if rows <= sensor[0] and columns <= sensor[1]), (rows, columns))
