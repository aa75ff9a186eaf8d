"""Duration of the longest recording of a dataset, measured once and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.clip_dataset import RecordDataset
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import as_events, repair
from slowfast.datasets.loader import SampleLoader
from slowfast.datasets.types import Failure, Record
from slowfast.errors import DataError, system_reason
from slowfast.utils.files import write_whole
from slowfast.utils.json_files import from_json, to_json
from slowfast.utils.logging import get_logger
from slowfast.utils.machine import usable_cores
from slowfast.utils.private_cache import private_cache

_RECORDINGS_PER_TASK = 32  # of a worker


def longest_recording(
    records: Sequence[Record], sensor: tuple[int, int], time_unit: float, timeout: float = 0.0
) -> float:
    """Return the duration of the longest readable recording in microseconds, cached across runs.

    Args:
        records: Recordings of the training set.
        sensor: Sensor height and width in pixels.
        time_unit: Duration of a timestamp tick in seconds.
        timeout: Time limit per recording in seconds; 0 for none.

    Raises:
        DataError: If no recording can be read, or all have a duration of 0.
    """
    cache = private_cache(f"longest_{_digest(records, sensor, time_unit)}.json")
    known = _read(cache)
    if known is not None:
        return known
    get_logger().info(f"Measuring the longest of {len(records)} recordings; set DVS.LONGEST to skip this")
    with _Durations(_Recordings(records, sensor, time_unit), timeout) as durations:
        longest = max(durations, default=0.0)
    if longest <= 0:
        raise DataError(
            "no readable training recording has a duration above 0. Set DVS.TIME_NORM to none or fix the recordings"
        )
    get_logger().info(f"Duration of the longest recording: {longest:.0f} microseconds, cached in {cache}")
    try:
        write_whole(cache, to_json({"microseconds": longest, "recordings": len(records)}) + "\n")
    except OSError as error:
        get_logger().warning(f"{cache} cannot be written ({system_reason(error)}); the next run will measure again")
    return longest


class _Recordings(RecordDataset):
    """Dataset of the durations of recordings."""

    def __init__(self, records: Sequence[Record], sensor: tuple[int, int], time_unit: float) -> None:
        super().__init__(records)
        self.sensor, self.time_unit = sensor, time_unit

    def longest(self, first: int) -> float:
        """Return the longest duration of _RECORDINGS_PER_TASK recordings in microseconds."""
        return max(self._duration(index) for index in range(first, min(first + _RECORDINGS_PER_TASK, len(self))))

    def _duration(self, index: int) -> float:
        """Return the duration of a recording, 0 if it cannot be read: it will fail again when it is loaded."""
        found = self.attempt(index, lambda record: duration(record.path, self.sensor, self.time_unit))
        return 0.0 if isinstance(found, Failure) else found


class _Durations(SampleLoader[int, float]):
    """Loader of the longest duration of each group of recordings."""

    def __init__(self, recordings: _Recordings, timeout: float) -> None:
        super().__init__(recordings, _Recordings.longest, usable_cores(), timeout, prefetch=2, pin=False)

    def tasks(self) -> Iterable[int]:
        """Return the index of the first recording of each task."""
        return range(0, len(self.dataset), _RECORDINGS_PER_TASK)


def duration(path: Path, sensor: tuple[int, int], time_unit: float) -> float:
    """Return the time from the first to the last event in microseconds.

    Raises:
        DecodeError: If the recording cannot be read.
    """
    recording = Recording(path)
    ends = as_events(recording.take(np.array([0, -1])), sensor, time_unit)
    if ends is None:
        ends, _ = repair(recording.take(slice(None)), sensor, time_unit)
    return float(ends.t[-1] - ends.t[0]) if len(ends) else 0.0


def _digest(records: Sequence[Record], sensor: tuple[int, int], time_unit: float) -> str:
    """Hash paths, sizes and modification times of the files, and how they are read."""
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
        value = from_json(cache.read_text(encoding="utf-8"))["microseconds"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # missing or damaged: measure again
    return float(value) if isinstance(value, (int, float)) and value > 0 else None
