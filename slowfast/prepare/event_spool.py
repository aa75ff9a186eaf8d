"""Events of a stream in temporary files, sorted by time in constant memory.

Notation: n events of the stream, k sorted runs.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import EventBlock
from slowfast.datasets.dvs.formats.base import BLOCK_EVENTS, Sensor, TimeUnwrapper
from slowfast.datasets.dvs.repair import COUNTERS, MAX_STRAY
from slowfast.datasets.dvs.sample import EventColumns

MAX_PIXELS = 2**16  # largest side, because x and y are written as uint16
# Types of the columns, as in converted files. Times are microseconds.
KINDS: dict[str, np.dtype[Any]] = {
    "x": np.dtype("<u2"),
    "y": np.dtype("<u2"),
    "t": np.dtype("<i8"),
    "p": np.dtype("u1"),
}
RUN_EVENTS = 2**20  # events sorted at a time
_MAX_TIME = 2**62  # limit of the times in microseconds


class EventSpool:
    """Column files of a stream.

    Args:
        folder: Folder of the files, created here; the caller deletes it.
        sensor: Sensor height and width in pixels stated by the recording, if any.
        tick: Microseconds per tick of the times.
    """

    def __init__(self, folder: Path, sensor: Sensor | None, tick: float) -> None:
        folder.mkdir(parents=True)
        self.folder, self.sensor, self.tick = folder, sensor, tick
        self.count = 0
        self._outside = 0
        self._low, self._high = [0, 0], [0, 0]  # smallest and largest x and y
        self._time_range = (0, 0)
        self._back = 0  # largest step back in time
        self._last = 0
        self._files = {key: (folder / key).open("wb") for key in KINDS}

    @property
    def extent(self) -> Sensor:
        """Height and width that contain all events."""
        return self._high[1] + 1, self._high[0] + 1

    def add(self, block: EventBlock) -> None:
        """Append events.

        Raises:
            DecodeError: If a time is out of range.
        """
        t = block.t
        if self.tick != 1.0 or t.dtype.kind == "f":
            t = np.rint(t * self.tick)
            if not (np.abs(t) < _MAX_TIME).all():
                raise DecodeError(f"t contains {t[np.argmax(np.abs(t))]:g} microseconds, which is out of range")
            t = t.astype(np.int64)
        self._observe_times(t)
        self._observe_pixels(block.x, block.y)
        self.count += len(t)
        for key, values in (("x", block.x), ("y", block.y), ("t", t), ("p", block.p)):
            self._files[key].write(np.ascontiguousarray(values, KINDS[key]).data)

    def _observe_times(self, t: np.ndarray) -> None:
        low, high = int(t.min()), int(t.max())
        if self.count:
            low, high = min(low, self._time_range[0]), max(high, self._time_range[1])
            self._back = max(self._back, self._last - int(t[0]))
        if len(t) > 1:
            self._back = max(self._back, -int(np.diff(t).min()))
        self._time_range, self._last = (low, high), int(t[-1])

    def _observe_pixels(self, x: np.ndarray, y: np.ndarray) -> None:
        low, high = [int(x.min()), int(y.min())], [int(x.max()), int(y.max())]
        self._low = [min(pair) for pair in zip(low, self._low, strict=True)] if self.count else low
        self._high = [max(pair) for pair in zip(high, self._high, strict=True)] if self.count else high
        if self.sensor is not None and (high[0] >= self.sensor[1] or high[1] >= self.sensor[0]):
            self._outside += int(np.count_nonzero((x >= self.sensor[1]) | (y >= self.sensor[0])))

    def finish(self) -> None:
        """Check the coordinates, undo the overflow of the times and sort the events by time.

        Raises:
            DecodeError: If x and y cannot be pixels, or too many are outside the sensor stated by the file.
        """
        for file in self._files.values():
            file.close()
        if not self.count:
            return
        self._check_coordinates()
        if self._back > COUNTERS[0] // 2:
            self._unwrap()
        if self._back > 0:
            self._sort()

    def _check_coordinates(self) -> None:
        found = f"x {self._low[0]} to {self._high[0]}, y {self._low[1]} to {self._high[1]}"
        if min(self._low) < 0 or max(self._high) >= MAX_PIXELS:
            raise DecodeError(f"some events have invalid coordinates ({found})")
        if self.sensor is not None and self._outside > MAX_STRAY * self.count:
            sensor = f"{self.sensor[0]} x {self.sensor[1]} pixels"
            raise DecodeError(f"{self._outside} of {self.count} events are outside of the sensor of {sensor} ({found})")

    def _unwrap(self) -> None:
        """Undo the overflow of a counter of 31 or 32 bits."""
        low, high = self._time_range
        unwrap = TimeUnwrapper(31 if low >= 0 and high < COUNTERS[0] else 32)
        back, last = 0, None
        with (self.folder / "t").open("r+b") as file:
            for first in range(0, self.count, BLOCK_EVENTS):
                t = unwrap(self._read("t", first, first + BLOCK_EVENTS))
                file.seek(first * KINDS["t"].itemsize)
                file.write(t.data)
                steps = np.diff(t, prepend=t[0] if last is None else last)
                back, last = max(back, -int(steps.min())), t[-1]
        self._back = back

    def _sort(self) -> None:
        """Sort the events by time, stably: sorted runs are merged piece by piece."""
        runs = []
        for first in range(0, self.count, RUN_EVENTS):
            last = min(first + RUN_EVENTS, self.count)
            order = np.argsort(self._read("t", first, last), kind="stable")
            for key, kind in KINDS.items():
                values = self._read(key, first, last)[order]
                with (self.folder / key).open("r+b") as file:
                    file.seek(first * kind.itemsize)
                    file.write(values.data)
            runs.append((first, last))
        if len(runs) > 1:
            self._merge(runs)

    def _merge(self, runs: list[tuple[int, int]]) -> None:
        """Merge sorted runs into one, piece by piece."""
        step = max(RUN_EVENTS // len(runs), 1)
        position, ends = [first for first, _ in runs], [last for _, last in runs]
        with ExitStack() as stack:
            files = {key: stack.enter_context((self.folder / f"{key}.sorted").open("wb")) for key in KINDS}
            while position != ends:
                places = zip(position, ends, strict=True)
                pieces = [self._read("t", at, min(at + step, end)) for at, end in places]
                following = self._before_bound(pieces, position, ends)
                if following == position:
                    following = self._copy_equal(pieces, position, ends, files)
                else:
                    counts = [end - at for at, end in zip(position, following, strict=True)]
                    times = [piece[:count] for piece, count in zip(pieces, counts, strict=True)]
                    order = np.argsort(np.concatenate(times), kind="stable")
                    for key, file in files.items():
                        places = zip(position, following, strict=True)
                        file.write(np.concatenate([self._read(key, at, end) for at, end in places])[order].data)
                position = following
        for key in KINDS:
            (self.folder / f"{key}.sorted").replace(self.folder / key)

    def _before_bound(self, pieces: list[np.ndarray], position: list[int], ends: list[int]) -> list[int]:
        """Return how far each piece may be merged: up to the earliest time that has not been read yet."""
        unread = [
            int(piece[-1])
            for piece, at, end in zip(pieces, position, ends, strict=True)
            if len(piece) and at + len(piece) < end
        ]
        if not unread:
            return ends
        return [at + int(np.searchsorted(piece, min(unread))) for piece, at in zip(pieces, position, strict=True)]

    def _copy_equal(
        self, pieces: list[np.ndarray], position: list[int], ends: list[int], files: Mapping[str, BinaryIO]
    ) -> list[int]:
        """Copy the events of the earliest time run by run, if there are more of them than fit in a piece."""
        time = min(int(piece[0]) for piece in pieces if len(piece))
        following = []
        for at, end in zip(position, ends, strict=True):
            count = RUN_EVENTS
            while at < end and count == RUN_EVENTS:
                count = int(np.searchsorted(self._read("t", at, min(at + RUN_EVENTS, end)), time, side="right"))
                for key, file in files.items():
                    file.write(self._read(key, at, at + count).data)
                at += count
            following.append(at)
        return following

    def _read(self, key: str, first: int, last: int) -> np.ndarray:
        """Read the values first .. last - 1 of a column, or up to its end."""
        last = min(last, self.count)
        kind = KINDS[key]
        return np.fromfile(self.folder / key, kind, last - first, offset=first * kind.itemsize)

    def part(self, first: int, last: int) -> EventColumns:
        """Return the events first .. last - 1 in the order of time."""
        x, y, p = (self._read(key, first, last).astype(np.int64) for key in "xyp")
        return EventColumns(x, y, self._read("t", first, last).astype(np.float64), p)

    def parts(self) -> Iterator[EventColumns]:
        """Yield all events in the order of time, in blocks."""
        for first in range(0, self.count, BLOCK_EVENTS):
            yield self.part(first, first + BLOCK_EVENTS)

    def between(self, start: float, end: float) -> EventColumns:
        """Return the events from a time up to before another one (microseconds)."""
        times = np.memmap(self.folder / "t", KINDS["t"], "r")
        first, last = (int(np.searchsorted(times, time)) for time in (start, end))
        del times
        return self.part(first, max(first, last))

    def write_npz(self, file: Path) -> None:
        """Write all events to an uncompressed .npz file, as :func:`~slowfast.prepare.save_events.save_events` does."""
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for key, kind in KINDS.items():
                with (
                    archive.open(f"{key}.npy", "w", force_zip64=True) as member,
                    (self.folder / key).open("rb") as column,
                ):
                    header = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": (self.count,)}
                    npy.write_array_header_1_0(member, header)
                    shutil.copyfileobj(column, member, 2**20)
