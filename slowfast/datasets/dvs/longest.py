"""The longest recording of a data set: found once, kept in the user's cache for as long as the files stay the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import as_events, repair
from slowfast.datasets.loader import MediaLoader
from slowfast.datasets.media_dataset import Reading
from slowfast.datasets.types import Failure, Record
from slowfast.errors import DataError, system_reason
from slowfast.runtime.cores import usable_cores
from slowfast.runtime.logging import get_logger
from slowfast.runtime.private_cache import private_cache
from slowfast.runtime.unfinished import write_whole

_TOGETHER = 32  # recordings of one task of a worker


def longest_recording(
    records: Sequence[Record], sensor: tuple[int, int], time_unit: float, timeout: float = 0.0
) -> float:
    """Return the longest time (microseconds) from first to last event, of the recordings that can be read.

    Args:
        records: Recordings of the training set.
        sensor: Height and width in pixels.
        time_unit: Seconds of one unit of the files' times.
        timeout: Seconds that one recording may take; 0 sets no limit.

    Raises:
        DataError: If none can be read, or all have one instant only.
    """
    cache = private_cache(f"longest_{_digest(records, sensor, time_unit)}.json")
    known = _read(cache)
    if known is not None:
        return known
    get_logger().info(f"looking for the longest of {len(records)} recordings; DVS.LONGEST would save this")
    with _Durations(_Recordings(records, sensor, time_unit), timeout) as durations:
        longest = max(durations, default=0.0)
    if longest <= 0:
        raise DataError("no training recording can be read and has a duration; set DVS.TIME_NORM none, or mend them")
    get_logger().info(f"the longest recording has {longest:.0f} microseconds; kept in {cache}")
    try:
        write_whole(cache, json.dumps({"microseconds": longest, "recordings": len(records)}) + "\n")
    except OSError as error:
        get_logger().warning(f"{cache} cannot be written ({system_reason(error)}): it will be looked for again")
    return longest


class _Recordings(Reading):
    """Recordings of which only the duration is read."""

    def __init__(self, records: Sequence[Record], sensor: tuple[int, int], time_unit: float) -> None:
        super().__init__(records)
        self.sensor, self.time_unit = sensor, time_unit

    def longest(self, first: int) -> float:
        """Return the longest duration of _TOGETHER recordings, microseconds."""
        return max(self._duration(place) for place in range(first, min(first + _TOGETHER, len(self))))

    def _duration(self, place: int) -> float:
        """Return 0 for one that cannot be read: it is listed as failed when its turn comes."""
        found = self.attempt(place, lambda record: duration(record.path, self.sensor, self.time_unit))
        return 0.0 if isinstance(found, Failure) else found


class _Durations(MediaLoader[int, float]):
    """Loader of the longest durations of some recordings each."""

    def __init__(self, recordings: _Recordings, timeout: float) -> None:
        super().__init__(recordings, _Recordings.longest, usable_cores(), timeout, prefetch=2, pin=False)

    def tasks(self) -> Iterable[int]:
        """Return the place of the first recording of each task."""
        return range(0, len(self.dataset), _TOGETHER)


def duration(path: Path, sensor: tuple[int, int], time_unit: float) -> float:
    """Return the microseconds from the first to the last event. Raises DecodeError."""
    recording = Recording(path)
    ends = as_events(recording.take(np.array([0, -1])), sensor, time_unit)
    if ends is None:
        ends, _ = repair(recording.take(slice(None)), sensor, time_unit)
    return float(ends.t[-1] - ends.t[0]) if len(ends) else 0.0


def _digest(records: Sequence[Record], sensor: tuple[int, int], time_unit: float) -> str:
    """Of the files' places, sizes and dates, and how they are read."""
    text = hashlib.sha256(repr((sensor, time_unit)).encode())
    for record in records:
        try:
            state = record.path.stat()
            text.update(
                f"{record.path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
        except OSError:
            text.update(f"{record.path.absolute()}\0missing\n".encode(errors="surrogateescape"))
    return text.hexdigest()[:24]


def _read(cache: Path) -> float | None:
    try:
        value = json.loads(cache.read_text(encoding="utf-8"))["microseconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none yet, or a damaged one: it is made anew
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
