"""Conversion of event camera recordings to .npz files, complete or cut into parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import READERS
from slowfast.datasets.dvs.formats.aedat import read_gesture_labels
from slowfast.datasets.dvs.formats.streams import EventStream
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import MAX_STRAY, undo_overflow
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.windows import windows_by_count, windows_by_time
from slowfast.errors import UserError, system_reason
from slowfast.prepare.jobs import Conversion, ConvertedFile, FileKind, Job, convert_files
from slowfast.prepare.video_to_dvs import save_events
from slowfast.utils.files import MIB, atomic_write_text
from slowfast.utils.json_files import from_json, to_json
from slowfast.utils.ray_cluster import LOCAL
from slowfast.utils.text_files import UnreadableTextError, read_text_file
from slowfast.utils.worker import still_working

RECORDINGS = FileKind("recordings", frozenset(READERS))
SETTINGS_FILE = ".convert_events.json"  # in the target folder
# Files of DVS Gesture beside a recording: its labels (instead of its suffix) and the lists of the splits.
LABELS = "_labels.csv"
SPLIT_LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
MAX_PIXELS = 2**16  # per side: x and y are written as uint16


@dataclass(frozen=True)
class CutSettings:
    """Settings of cutting recordings into parts.

    At most one of the two is set; with neither a recording is one file. Recordings of DVS Gesture with a label file are
    always cut by it.

    Args:
        window_time: Duration of a window in microseconds.
        window_events: Number of events in a window.

    Raises:
        UserError: If a value is negative or both are set.
    """

    window_time: float = 0.0
    window_events: int = 0

    def __post_init__(self) -> None:
        if self.window_time < 0 or self.window_events < 0 or (self.window_time and self.window_events):
            raise UserError("--window-time and --window-events: give at most one of them, greater than 0")


def convert_recordings(
    source: Path, target: Path, settings: CutSettings, workers: int, engine: str = LOCAL
) -> Conversion:
    """Convert all recordings below `source` to .npz files below `target`.

    ``a/b.raw`` becomes ``a/b.npz``, or ``a/b_00000.npz`` and so on if it is cut into windows. A record of the files
    written is kept beside them in ``.<name>.json``; recordings whose files are complete are skipped. Failures are
    listed in failed.csv.

    Args:
        source: Folder of recordings.
        target: Folder to write to, outside of `source`.
        settings: How to cut the recordings.
        workers: Number of worker processes.
        engine: `LOCAL` or `RAY`, see :func:`~slowfast.prepare.jobs.run_jobs`.

    Raises:
        UserError: If a folder is unsuitable, if `target` was converted with other settings, or if the files cannot be
            written.
        DataError: If no recording can be read.
    """
    _check_settings(target / SETTINGS_FILE, settings)
    work = partial(_convert_one, settings, target / SETTINGS_FILE)
    return convert_files(
        work, source, target, workers, is_done=_is_done, target_suffix="", kind=RECORDINGS, engine=engine
    )


def _check_settings(file: Path, settings: CutSettings) -> None:
    """Raise UserError if the target was converted with other settings: its files would be mixed."""
    known = _read_json(file)
    if known is not None and known != asdict(settings):
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in known.items())
        raise UserError(
            f"TARGET {file.parent}: already contains recordings converted with {options}. Choose another target for "
            "other settings"
        )


def record_file(job: Job) -> Path:
    """Return the file that lists what a recording was converted to."""
    return job.target.with_name(f".{job.source.name}.json")


def _is_done(job: Job) -> bool:
    record = _read_json(record_file(job))
    return record is not None and all((job.target.parent / name).exists() for name in record.get("files", ()))


def _read_json(file: Path) -> dict | None:
    try:
        content = from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _convert_one(settings: CutSettings, settings_file: Path, job: Job) -> ConvertedFile:
    streams = read_streams(job.source)
    damage = list(dict.fromkeys(stream.damage for stream in streams if stream.damage))
    total = sum(len(stream.events) for stream in streams)
    if not total:
        raise DecodeError("; ".join(damage) or "the recording contains no events")
    if not settings_file.exists():
        atomic_write_text(settings_file, to_json(asdict(settings)) + "\n")
    counts, empty = _write_parts(streams, settings, job)
    if not counts:
        raise DecodeError(_reason_for_nothing(total, settings))
    record = {"events": total, "files": counts, "sensors": [stream.sensor for stream in streams]}
    atomic_write_text(record_file(job), to_json(record) + "\n")
    if empty:
        damage.append(f"skipped {len(empty)} labeled parts without events: {', '.join(empty)}")
    return ConvertedFile("; ".join(damage) or None, _sensor_sizes(streams))


def read_streams(source: Path) -> Sequence[EventStream]:
    """Read the event streams of a recording.

    Raises:
        DecodeError: If it cannot be read or its coordinates are not those of a sensor.
    """
    try:
        streams = READERS[source.suffix.lower()](source)
    except OSError as error:
        raise DecodeError(f"the file cannot be read: {system_reason(error)}") from error
    for stream in streams:
        _check_coordinates(stream)
    return streams


def _check_coordinates(stream: EventStream) -> None:
    """Raise DecodeError if x and y cannot be pixels, or too many are outside of the sensor that the file names."""
    x, y = stream.events.x, stream.events.y
    if not len(x):
        return
    found = f"x {x.min()} to {x.max()}, y {y.min()} to {y.max()}"
    if min(x.min(), y.min()) < 0 or max(x.max(), y.max()) >= MAX_PIXELS:
        raise DecodeError(f"some events have invalid coordinates ({found})")
    height, width = stream.sensor or (MAX_PIXELS, MAX_PIXELS)
    outside = int(((x >= width) | (y >= height)).sum())
    if outside > MAX_STRAY * len(x):
        sensor = f"{height} x {width} pixels"
        raise DecodeError(f"{outside} of {len(x)} events are outside of the sensor of {sensor} ({found})")


def _write_parts(streams: Sequence[EventStream], settings: CutSettings, job: Job) -> tuple[dict[str, int], list[str]]:
    """Write the files of a recording.

    Returns:
        The number of events in each file, and the names of labeled parts without events.

    Raises:
        OSError: If a file does not contain what was written.
    """
    counts: dict[str, int] = {}
    empty: list[str] = []
    for stream in streams:
        if not len(stream.events):
            continue
        for file, part in cut(sort_by_time(stream.events), stream.name, settings, job):
            name = file.relative_to(job.target.parent).as_posix()
            if not len(part):
                empty.append(name)
                continue
            still_working()
            save_events(file, part)
            counts[name] = Recording(file).n
            if counts[name] != len(part):
                raise OSError(f"{file} contains {counts[name]} of {len(part)} events")
    return counts, empty


def cut(events: EventColumns, name: str, settings: CutSettings, job: Job) -> Iterator[tuple[Path, EventColumns]]:
    """Yield the files of a stream and the events of each.

    Yields nothing if there are fewer events than a window needs. Labeled parts may be empty.

    Args:
        events: Events in order of time.
        name: Name of the stream, part of the file names; empty if it is the only one.
        settings: How to cut it.
        job: Job of the recording.

    Raises:
        DecodeError: If the labels cannot be read.
    """
    folder = job.target.parent
    stem = f"{job.target.name}_{name}" if name else job.target.name
    labels = job.source.with_name(job.source.stem + LABELS)
    if labels.exists():
        split = folder / _split_of(job.source)
        for number, part in enumerate(read_gesture_labels(labels)):
            inside = (events.t >= part.start) & (events.t < part.end)
            yield split / str(part.label) / f"{stem}_{number}.npz", events.take(inside)
    elif settings.window_time or settings.window_events:
        for number, window in enumerate(_windows(events, settings)):
            yield folder / f"{stem}_{number:05d}.npz", window
    else:
        yield folder / f"{stem}.npz", events


def _windows(events: EventColumns, settings: CutSettings) -> Iterator[EventColumns]:
    if settings.window_time:
        return windows_by_time([events], settings.window_time)
    return windows_by_count([events], settings.window_events)


def _split_of(source: Path) -> str:
    """Return the split of a recording of DVS Gesture by the lists beside it; DecodeError if it is in none."""
    for split, name in SPLIT_LISTS.items():
        file = source.with_name(name)
        try:
            names = read_text_file(file, MIB).split()
        except UnreadableTextError as error:
            if error.missing:
                continue
            raise DecodeError(f"{name} beside it {error}") from None
        if source.name in names:
            return split
    raise DecodeError(f"not listed in {' or '.join(SPLIT_LISTS.values())} of the same folder")


def _reason_for_nothing(total: int, settings: CutSettings) -> str:
    if total < settings.window_events:
        return f"{total} events are too few for a window of {settings.window_events}"
    return f"none of the {total} events is inside a part of the label file"


def _sensor_sizes(streams: Sequence[EventStream]) -> str | None:
    """Return the config key for the sensor sizes that the file names."""
    sizes = sorted({stream.sensor for stream in streams if stream.sensor is not None})
    return ", ".join(f"DVS.SENSOR_SIZE [{height},{width}]" for height, width in sizes) or None


def sort_by_time(events: EventColumns) -> EventColumns:
    """Unwrap the overflow of the timestamp counter and sort the events by time."""
    unwrapped = undo_overflow(events.t) if len(events) else None
    events = events if unwrapped is None else EventColumns(events.x, events.y, unwrapped, events.p)
    return events if (np.diff(events.t) >= 0).all() else events.at(events.t)
