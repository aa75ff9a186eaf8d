"""Event recordings for random access, validation and repair of their events, and files of event clusters.

Recordings of any registered format are opened. Formats with records of fixed size are read on demand; others are
decoded as a whole when they are opened. Clusters are .npz files with x, y (real numbers), t, p and intensity, the
number of events of each cluster.

Notation: n events of a recording, or n clusters.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.reader import check_file
from slowfast.datasets.dvs.formats import open_events, read_stream
from slowfast.datasets.dvs.formats.base import EventReader, check_count, guarded, seconds_per_tick
from slowfast.datasets.dvs.formats.columns import Column, Polarities, UnpackedColumn, finite_times
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.sample_files import SampleFiles
from slowfast.utils.text import plain

# Largest file that is decoded as a whole, in bytes, so that training and drawing do not hang on huge ones.
MAX_WHOLE_BYTES = 2**31
# Events outside the sensor are dropped. A larger fraction means that the sensor size is wrong.
MAX_STRAY = 0.1
# Descriptions of the repairs.
STRAY = "dropped events outside of the sensor"
UNSORTED = "sorted events by time"
OVERFLOW = "unwrapped the overflow of the timestamps"
REPAIRS = (STRAY, UNSORTED, OVERFLOW)
# Ranges of timestamp counters that overflow.
COUNTERS = (2**31, 2**32)

_SHOWN = 4  # streams in a message

Raw = Mapping[str, np.ndarray]
Size = tuple[int, int]  # height, width
CLUSTER_COLUMNS = ("x", "y", "t", "p", "intensity")
MAX_CLUSTER_BYTES = 2**28  # of all columns together, so that a small compressed file cannot exhaust the memory


@dataclass(frozen=True)
class Opening:
    """Settings with which recordings are opened."""

    sensor: tuple[int, int]  # height and width in pixels
    time_unit: float = 1e-6  # seconds per timestamp tick
    stream: str = ""  # name of the stream, for files with several streams
    timeout: float = 0.0  # time limit per recording in seconds; 0 for none
    files: SampleFiles = field(default_factory=partial(SampleFiles, 0))  # access to the recordings

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Opening:
        """Build from the DVS settings and DATA_LOADER.TIMEOUT."""
        sensor, files = (cfg.DVS.SENSOR_SIZE[0], cfg.DVS.SENSOR_SIZE[1]), SampleFiles.from_config(cfg)
        return cls(sensor, cfg.DVS.TIME_UNIT, cfg.DVS.STREAM, cfg.DATA_LOADER.TIMEOUT, files)


class Recording:
    """Columns x, y, t, p of a file, of any numeric type; columns of records are only read by :meth:`take`.

    Args:
        path: Path of a file with a suffix of :func:`event_suffixes`.
        stream: Name of the stream of a file with several; one of a single stream needs none.

    Raises:
        DecodeError: If the file is missing, damaged, not a regular file, too large, or contains several streams, none
            of which has this name.
    """

    def __init__(self, path: Path, stream: str = "") -> None:
        reader = open_events(path)
        number = stream_number(reader, stream)
        self.sensor = reader.streams[number].sensor
        with guarded(path):
            columns = reader.columns() if len(reader.streams) == 1 else None
            self.columns = _whole(reader, number) if columns is None else columns
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


def stream_number(reader: EventReader, name: str) -> int:
    """Return the number of a stream. Raises DecodeError if there are several streams, none of which has this name."""
    names = [stream.name for stream in reader.streams]
    if len(names) == 1:
        return 0
    if name in names:
        return names.index(name)
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    raise DecodeError(
        f"contains {len(names)} event streams ({shown}){f', none of them {plain(name)}' if name else ''}. Choose one "
        "with DVS.STREAM (draw-dvs: --stream), or convert the file first: slowfast convert-dvs"
    )


def _whole(reader: EventReader, stream: int) -> Mapping[str, Column]:
    """Decode all events of a stream."""
    size = reader.path.stat().st_size
    if size > MAX_WHOLE_BYTES:
        raise DecodeError(
            f"the size of {size / 2**30:.1f} GiB exceeds the limit of {MAX_WHOLE_BYTES / 2**30:g} GiB for reading it "
            "as a whole. Convert it first: slowfast convert-dvs"
        )
    events = read_stream(reader, stream)
    return {key: UnpackedColumn(getattr(events, key)) for key in "xytp"}


def as_events(raw: Raw, sensor: Size, time_unit: float) -> EventColumns | None:
    """Validate raw event columns.

    Args:
        raw: Columns ``x``, ``y``, ``t``, ``p`` of shape (n,).
        sensor: Sensor height and width in pixels.
        time_unit: Duration of a timestamp tick in seconds.

    Returns:
        The events, or None if they have to be repaired.

    Raises:
        DecodeError: If a column contains invalid values.
    """
    x, y, t, p = _validated(raw)
    if _outside(x, y, sensor).any() or (np.diff(t) < 0).any():
        return None
    return EventColumns(x, y, t * (time_unit / 1e-6), p)


def repair(raw: Raw, sensor: Size, time_unit: float) -> tuple[EventColumns, list[str]]:
    """Validate raw event columns and repair unambiguous defects.

    Drops events outside of the sensor (at most MAX_STRAY), sorts unordered timestamps and unwraps 31- and 32-bit
    counter overflow.

    Args:
        raw: Columns ``x``, ``y``, ``t``, ``p`` of shape (n,), of a complete recording.
        sensor: Sensor height and width in pixels.
        time_unit: Duration of a timestamp tick in seconds.

    Returns:
        The repaired events and a description of each repair, in REPAIRS.

    Raises:
        DecodeError: If a defect has no unambiguous repair.
    """
    x, y, t, p = _validated(raw)
    done = []
    outside = _outside(x, y, sensor)
    if outside.mean() > MAX_STRAY:
        raise DecodeError(
            f"{outside.sum()} of {len(outside)} events are outside of the sensor of {sensor[0]} x {sensor[1]} pixels "
            f"(x up to {x.max()}, y up to {y.max()}). Check DVS.SENSOR_SIZE"
        )
    if outside.any():
        x, y, t, p = (column[~outside] for column in (x, y, t, p))
        done.append(STRAY)
    unwrapped = undo_overflow(t)
    if unwrapped is not None:
        t = unwrapped
        done.append(OVERFLOW)
    events = EventColumns(x, y, t * (time_unit / 1e-6), p)
    if (np.diff(t) < 0).any():
        events = events.at(events.t)
        done.append(UNSORTED)
    return events, done


def clean_events(raw: Raw, sensor: Size, time_unit: float) -> tuple[EventColumns, list[str]]:
    """Validate the raw columns of a complete recording and repair them if necessary; see :func:`repair`."""
    events = as_events(raw, sensor, time_unit)
    return repair(raw, sensor, time_unit) if events is None else (events, [])


def undo_overflow(t: np.ndarray) -> np.ndarray | None:
    """Unwrap the overflow of a timestamp counter.

    A step back by more than half of the counter's range is an overflow, because events are never that far out of order.

    Args:
        t: Timestamps (n,).

    Returns:
        Unwrapped timestamps, float64 (n,), or None if there is no overflow.
    """
    back = np.diff(t) < -COUNTERS[0] / 2
    if not back.any():
        return None
    counter = COUNTERS[0] if t.min() >= 0 and t.max() < COUNTERS[0] else COUNTERS[1]
    forth = np.diff(t) > counter / 2  # a late event from before the overflow
    overflows = np.concatenate(([0], np.cumsum(back.astype(np.int64) - forth.astype(np.int64))))
    return t + overflows * float(counter)


def _outside(x: np.ndarray, y: np.ndarray, sensor: Size) -> np.ndarray:
    return (x < 0) | (y < 0) | (x >= sensor[1]) | (y >= sensor[0])


def _pixels(values: np.ndarray, name: str) -> np.ndarray:
    if values.dtype.kind == "f" and not (valid := np.isfinite(values) & (values == np.rint(values))).all():
        raise DecodeError(f"{name} contains values that are not pixels, such as {values[~valid][0]}")
    return values.astype(np.int64)


def _validated(raw: Raw) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y, t and p as int64, int64, float64 and int64. Raises DecodeError if a value is invalid."""
    x, y = _pixels(raw["x"], "x"), _pixels(raw["y"], "y")
    return x, y, finite_times(raw["t"]).astype(np.float64), Polarities()(raw["p"]).astype(np.int64)


def read_clusters(path: Path, sensor: tuple[int, int]) -> EventColumns:
    """Read the clusters of a recording, in ascending order of time.

    Args:
        path: File written by ``slowfast cluster-dvs`` or the authors' code.
        sensor: Sensor height and width in pixels.

    Raises:
        DecodeError: If the file is missing, damaged or not a file of clusters.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as file:
            if sum(member.file_size for member in file.infolist()) > MAX_CLUSTER_BYTES:
                raise DecodeError(
                    f"more than {MAX_CLUSTER_BYTES >> 20} MiB are not a file of clusters. Set DVS.CLUSTERS False"
                )
        with np.load(path, allow_pickle=False) as content:
            missing = [name for name in CLUSTER_COLUMNS if name not in content.files]
            if missing:
                raise DecodeError(f"missing {', '.join(missing)}: not a file of clusters. Set DVS.CLUSTERS False")
            x, y, t, p, intensity = (np.asarray(content[name]) for name in CLUSTER_COLUMNS)
    except DecodeError:
        raise
    except Exception as error:  # NumPy and zipfile raise various errors for damaged files
        raise DecodeError(f"not a readable .npz file: {(str(error).splitlines() or [''])[0][:200]}") from error
    columns = (x, y, t, p, intensity)
    if any(column.ndim != 1 or column.dtype.kind not in "iufb" or len(column) != len(x) for column in columns):
        raise DecodeError("x, y, t, p and intensity must be numbers, one-dimensional and of equal length")
    if not len(x):
        raise DecodeError("the recording contains no events")
    x, y, t, intensity = (column.astype(np.float64) for column in (x, y, t, intensity))
    inside = (x >= 0) & (y >= 0) & (x <= sensor[1] - 1) & (y <= sensor[0] - 1)
    if not (inside & np.isfinite(t) & (intensity >= 1) & np.isfinite(intensity)).all():
        raise DecodeError(
            f"clusters must lie on the sensor of {sensor[0]} x {sensor[1]} pixels (DVS.SENSOR_SIZE), with finite times "
            "and intensities of at least 1"
        )
    if not np.isin(p, (0, 1)).all():
        raise DecodeError(f"p contains {p[~np.isin(p, (0, 1))][0]}; polarities of clusters are 0 and 1")
    return EventColumns(x, y, t, p.astype(np.int64), intensity).at(t)
