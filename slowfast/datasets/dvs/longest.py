"""The longest recording of a data set: found once, kept in the user's cache for as long as the files stay the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import as_events, repair
from slowfast.datasets.types import Record
from slowfast.errors import DataError
from slowfast.runtime.cores import usable_cores
from slowfast.runtime.logging import get_logger
from slowfast.runtime.private_cache import private_cache
from slowfast.runtime.unfinished import write_whole


def longest_recording(records: Sequence[Record], sensor: tuple[int, int], time_unit: float) -> float:
    """The longest time (microseconds) from first to last event, of those that can be read.

    Raises DataError where none can, or all have one instant only.
    """
    cache = private_cache(f"longest_{_digest(records, sensor, time_unit)}.json")
    known = _read(cache)
    if known is not None:
        return known
    get_logger().info(f"looking for the longest of {len(records)} recordings; DVS.LONGEST would save this")
    with ThreadPoolExecutor(usable_cores()) as pool:  # reading and unpacking let other threads run
        longest = max(pool.map(lambda record: duration(record.path, sensor, time_unit), records), default=0.0)
    if longest <= 0:
        raise DataError("no training recording can be read and has a duration; set DVS.TIME_NORM none, or mend them")
    get_logger().info(f"the longest recording has {longest:.0f} microseconds; kept in {cache}")
    try:
        write_whole(cache, json.dumps({"microseconds": longest, "recordings": len(records)}) + "\n")
    except OSError as error:
        get_logger().warning(f"{cache} cannot be written ({error.strerror}): it will be looked for again")
    return longest


def duration(path: Path, sensor: tuple[int, int], time_unit: float) -> float:
    """Microseconds from the first to the last event; 0 where the recording cannot be read."""
    try:
        recording = Recording(path)
        ends = as_events(recording.take(np.array([0, -1])), sensor, time_unit)
        if ends is None:
            ends, _ = repair(recording.take(slice(None)), sensor, time_unit)
    except DecodeError:
        return 0.0  # it is listed as failed when its turn comes
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
