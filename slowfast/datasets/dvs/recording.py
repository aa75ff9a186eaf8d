"""Event recordings of any registered format, for random access.

Formats with records of fixed size are read on demand; others are decoded as a whole when they are opened.

Notation: n events of a recording.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.columns import Column, UnpackedColumn
from slowfast.datasets.dvs.formats import open_events, read_stream
from slowfast.datasets.dvs.formats.base import EventReader, check_count, guarded, seconds_per_tick

# Largest size of a file that is decoded as a whole, in bytes: training and drawing must not hang on a huge one.
MAX_WHOLE_BYTES = 2**31


class Recording:
    """Columns x, y, t, p of a file, of any numeric type; those of records are read by :meth:`take` only.

    Args:
        path: Path of a file with a suffix of :func:`event_suffixes`.

    Raises:
        DecodeError: If the file is missing, damaged, not a regular file, too large, or contains several streams.
    """

    def __init__(self, path: Path) -> None:
        reader = open_events(path)
        check_one_stream(reader)
        self.sensor = reader.streams[0].sensor
        with guarded(path):
            columns = reader.columns()
            self.columns = _whole(reader) if columns is None else columns
        self._reader = reader
        self.notes, self.damage = reader.notes, reader.damage
        self.n = self.columns["t"].shape[0]
        if self.n == 0:
            raise DecodeError("; ".join(self.damage) or "the recording contains no events")

    def time_unit(self, configured: float) -> float:
        """Return the seconds per tick of the times; see :func:`seconds_per_tick`."""
        return seconds_per_tick(self._reader, configured)

    def take(self, rows: np.ndarray | slice) -> dict[str, np.ndarray]:
        """Read the columns of some events.

        Args:
            rows: Indices of single events, which are read without those between them, or a slice.

        Raises:
            DecodeError: If the file has been truncated, or a slice of a recording with more than MAX_EVENTS is read.
        """
        if isinstance(rows, slice):
            check_count(self.n)
        return {key: column.take(rows) for key, column in self.columns.items()}


def check_one_stream(reader: EventReader) -> None:
    """Raise DecodeError if a file contains several streams."""
    if len(reader.streams) != 1:
        names = ", ".join(stream.name for stream in reader.streams[:4])
        more = ", ..." if len(reader.streams) > 4 else ""
        raise DecodeError(
            f"contains {len(reader.streams)} event streams ({names}{more}). Convert it first: slowfast convert-dvs"
        )


def _whole(reader: EventReader) -> Mapping[str, Column]:
    """Decode all events of a recording."""
    size = reader.path.stat().st_size
    if size > MAX_WHOLE_BYTES:
        raise DecodeError(
            f"the size of {size / 2**30:.1f} GiB exceeds the limit of {MAX_WHOLE_BYTES / 2**30:g} GiB for reading it "
            "as a whole. Convert it first: slowfast convert-dvs"
        )
    events = read_stream(reader)
    return {key: UnpackedColumn(getattr(events, key)) for key in "xytp"}
