"""Durations and numbers of events of all recordings of a training set, measured once and cached across runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.datasets.clip_dataset import RecordDataset
from slowfast.datasets.dvs.recording import Opening, Recording, as_events, repair
from slowfast.datasets.loader import SampleLoader
from slowfast.datasets.sample_files import find_member
from slowfast.datasets.types import Failure, Record
from slowfast.errors import DataError
from slowfast.utils.cpu import usable_cores
from slowfast.utils.logging import get_logger
from slowfast.utils.private_cache import cached_json

_RECORDINGS_PER_TASK = 32  # recordings per task of a worker process


def longest_recording(records: Sequence[Record], opening: Opening) -> float:
    """Return the duration of the longest readable recording in microseconds.

    Raises:
        DataError: If no recording can be read, or all have a duration of 0.
    """

    def load(content: Any) -> float | None:
        known = content["microseconds"]
        return float(known) if isinstance(known, (int, float)) and known > 0 else None

    def measured() -> dict[str, Any]:
        get_logger().info(f"Measuring the longest of {len(records)} recordings; set DVS.LONGEST to skip this")
        longest = max(_measure(records, duration, opening), default=0.0)
        if longest <= 0:
            raise DataError(
                "no readable training recording has a duration above 0. Set DVS.TIME_NORM to none or fix the recordings"
            )
        get_logger().info(f"Duration of the longest recording: {longest:.0f} microseconds")
        return {"microseconds": longest, "recordings": len(records)}

    found = cached_json(f"longest_{_digest(records, opening)}.json", "the recordings", load, measured)
    assert found is not None
    return found


def event_counts(records: Sequence[Record], opening: Opening) -> np.ndarray:
    """Return the number of events of each recording, int64; 0 for those that cannot be read."""

    def load(content: Any) -> np.ndarray | None:
        known = content["events"]
        valid = len(known) == len(records) and all(isinstance(n, int) and n >= 0 for n in known)
        return np.array(known, np.int64) if valid else None

    def measured() -> dict[str, Any]:
        get_logger().info(f"Counting the events of {len(records)} recordings")
        counts = [int(n) for n in _measure(records, count, opening)]
        get_logger().info(f"{sum(counts)} events in all")
        return {"events": counts}

    found = cached_json(f"counts_{_digest(records, opening)}.json", "the recordings", load, measured)
    assert found is not None
    return found


def duration(path: Path, opening: Opening) -> float:
    """Return the time from the first to the last event in microseconds.

    Raises:
        DecodeError: If the recording cannot be read.
    """
    recording = Recording(path, opening.stream)
    time_unit = recording.time_unit(opening.time_unit)
    ends = as_events(recording.take(np.array([0, -1])), opening.sensor, time_unit)
    if ends is None:
        ends, _ = repair(recording.take(slice(None)), opening.sensor, time_unit)
    return float(ends.t[-1] - ends.t[0]) if len(ends) else 0.0


def count(path: Path, opening: Opening) -> float:
    """Return the number of events of a recording.

    Raises:
        DecodeError: If the recording cannot be read.
    """
    return Recording(path, opening.stream).n


Measure = Callable[[Path, Opening], float]


def _measure(records: Sequence[Record], measure: Measure, opening: Opening) -> Iterable[float]:
    """Yield a measure of each recording; 0 for those that cannot be read, which is reported when they are loaded."""
    with _Measures(_Recordings(records, measure, opening), opening.timeout) as groups:
        yield from chain.from_iterable(groups)


class _Recordings(RecordDataset):
    """Dataset of a measure of each recording."""

    def __init__(self, records: Sequence[Record], measure: Measure, opening: Opening) -> None:
        super().__init__(records)
        self.measure, self.opening = measure, opening

    def group(self, first: int) -> list[float]:
        """Return the measures of _RECORDINGS_PER_TASK recordings."""
        return [self._of_one(index) for index in range(first, min(first + _RECORDINGS_PER_TASK, len(self)))]

    def _of_one(self, index: int) -> float:
        found = self.attempt(index, self._read)
        return 0.0 if isinstance(found, Failure) else found

    def _read(self, record: Record) -> float:
        with self.opening.files.local(record.path, suffix=True) as path:
            return self.measure(path, self.opening)


class _Measures(SampleLoader[int, list[float]]):
    """Loader of the measures of each group of recordings."""

    def __init__(self, recordings: _Recordings, timeout: float) -> None:
        super().__init__(recordings, _Recordings.group, usable_cores(), timeout, prefetch=2, pin=False)

    def tasks(self) -> Iterable[int]:
        """Return the index of the first recording of each task."""
        return range(0, len(self.dataset), _RECORDINGS_PER_TASK)


def _digest(records: Sequence[Record], opening: Opening) -> str:
    """Hash the paths, sizes and modification times of the files and the settings with which they are read."""
    text = hashlib.sha256(repr((opening.sensor, opening.time_unit, opening.stream)).encode())
    for record in records:
        try:
            member = find_member(str(record.path))
            state = (record.path if member is None else Path(member.shard)).stat()
            text.update(
                f"{record.path.absolute()}\0{state.st_size}\0{state.st_mtime_ns}\n".encode(errors="surrogateescape")
            )
        except OSError:
            text.update(f"{record.path.absolute()}\0missing\n".encode(errors="surrogateescape"))
    return text.hexdigest()[:24]
