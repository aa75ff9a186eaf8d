"""Conversion of event recordings to .npz files, as a whole or cut into parts."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.event_windows import windows_by_count, windows_by_time
from slowfast.datasets.dvs.formats import EventReader, StreamInfo, event_suffixes, open_events, read_blocks
from slowfast.datasets.dvs.formats.aedat import read_gesture_labels
from slowfast.datasets.dvs.formats.base import MICROSECOND, seconds_per_tick
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.errors import UserError
from slowfast.prepare.event_spool import EventSpool, save_events
from slowfast.prepare.files import ConvertedFile, FileKind, Job
from slowfast.prepare.filter_events import FilterSettings, filter_spool
from slowfast.prepare.jobs import Conversion, convert_files
from slowfast.utils.files import MIB, atomic_path, atomic_write_text, part_owner
from slowfast.utils.paths import UnreadableTextError, read_text_file
from slowfast.utils.ray_cluster import LOCAL
from slowfast.utils.text_files import from_json, to_json
from slowfast.utils.worker import still_working

MAX_STREAMS = 100  # formats whose streams have individual sensor sizes
SETTINGS_FILE = ".convert_events.json"  # file in the target folder
EVENTS = "events"  # name of the number of events before the filters
# Files of DVS Gesture next to a recording: its labels (suffix) and the lists of the splits.
LABELS = "_labels.csv"
SPLIT_LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}


@dataclass(frozen=True)
class CutSettings:
    """Settings of filtering recordings and cutting them into parts.

    At most one of the first two is set; with neither, each becomes one file. Recordings of DVS Gesture with a label
    file are always cut by it.

    Args:
        window_time: Duration of a window in microseconds.
        window_events: Number of events in a window.
        time_unit: Seconds per tick of the times, for formats that do not state it; 0 for the default.
        window_step: Microseconds or events from one window to the next; 0 for those of a window.
        filters: Filters of the events, before they are cut.

    Raises:
        UserError: If a step is given without a window, or is a fraction of an event.
    """

    window_time: float = 0.0
    window_events: int = 0
    time_unit: float = 0.0
    window_step: float = 0.0
    filters: FilterSettings = FilterSettings()

    def __post_init__(self) -> None:
        if self.window_step and not self.window_time and not self.window_events:
            raise UserError("--window-step needs --window-time or --window-events")
        if self.window_events and self.window_step != int(self.window_step):
            raise UserError(f"--window-step {self.window_step:g}: must be a whole number of events")


def convert_recordings(
    source: Path, target: Path, settings: CutSettings, workers: int, engine: str = LOCAL
) -> Conversion:
    """Convert all recordings below `source` to .npz files below `target`.

    ``a/b.raw`` becomes ``a/b.npz``, or ``a/b_00000.npz`` and so on if it is cut into windows. A record of the files
    written is kept next to them in ``.<name>.json``; recordings whose files are complete are skipped. Failures are
    listed in failed.csv.

    Args:
        source: Folder of recordings.
        target: Folder to write to, outside of `source`.
        settings: How to filter and cut the recordings.
        workers: Number of worker processes.
        engine: `LOCAL` or `RAY`, see :func:`~slowfast.prepare.jobs.run_jobs`.

    Raises:
        UserError: If a folder is unsuitable, if `target` was converted with other settings, or if the files cannot be
            written.
        DataError: If no recording can be read.
    """
    _check_settings(target / SETTINGS_FILE, settings)
    work = partial(_convert_one, settings, target / SETTINGS_FILE)
    kind = FileKind("recordings", event_suffixes(), _accompanies)
    return convert_files(work, source, target, workers, is_done=_is_done, target_suffix="", kind=kind, engine=engine)


def _accompanies(name: Path) -> bool:
    """Return whether a file belongs to the recordings beside it."""
    return name.name.endswith(LABELS) or name.name in SPLIT_LISTS.values()


def _check_settings(file: Path, settings: CutSettings) -> None:
    """Raise UserError if the target was converted with other settings, because its files would be mixed."""
    known = _read_json(file)
    if known is not None and known != _as_record(settings):
        options = " ".join(_as_option(name, value) for name, value in known.items())
        raise UserError(
            f"TARGET {file.parent}: already contains recordings converted with {options}. Choose another target for "
            "other settings"
        )


def _as_option(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return option
    return f"{option} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def _as_record(settings: CutSettings) -> dict[str, Any]:
    """Return the settings as stored in the target; newer settings only if they are set, for older targets."""
    values = {**vars(settings), **vars(settings.filters)}
    unset = {**vars(CutSettings()), **vars(FilterSettings())}
    kept = {name for name, value in values.items() if value != unset[name]} - {"filters"}
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if name in kept | {"window_time", "window_events"}
    }


def record_file(job: Job) -> Path:
    """Return the file that lists the files converted from a recording."""
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
    reader = open_events(job.source)
    streams = reader.streams
    total, counts, empty = 0, dict[str, int](), list[str]()
    removed = Counter[str]()
    for number, stream in enumerate(streams):
        with _spooled(reader, number, stream, settings, job, removed) as spool:
            total += spool.count
            if spool.count and not settings_file.exists():
                atomic_write_text(settings_file, to_json(_as_record(settings)) + "\n")
            _write_parts(spool, stream, settings, job, counts, empty)
    damage = list(reader.damage)
    if not total:
        if removed.total():
            damage.append(f"the filters removed all of {removed.total()} events")
        raise DecodeError("; ".join(damage) or "the recording contains no events")
    if not counts:
        raise DecodeError(_reason_for_nothing(total, settings))
    each = [settings.filters.sensor(stream.sensor) for stream in streams]
    sensors = sorted({sensor for sensor in each if sensor is not None})
    shown = each if len(streams) <= MAX_STREAMS else sensors
    record = {"events": total, "files": counts, "sensors": shown, **({"removed": removed} if removed else {})}
    atomic_write_text(record_file(job), to_json(record) + "\n")
    if empty:
        damage.append(f"skipped {len(empty)} labeled parts without events: {', '.join(empty)}")
    notes = [*(f"DVS.SENSOR_SIZE [{height},{width}]" for height, width in sensors), *reader.notes]
    read = {EVENTS: total + removed.total()} if settings.filters.active else {}
    return ConvertedFile("; ".join(damage) or None, tuple(notes), {**read, **removed})


@contextmanager
def _spooled(
    reader: EventReader, number: int, stream: StreamInfo, settings: CutSettings, job: Job, removed: Counter[str]
) -> Iterator[EventSpool]:
    """Read a stream into files, in the order of time, and filter it.

    Args:
        reader: Reader of the recording.
        number: Position of the stream in it.
        stream: Description of the stream.
        settings: Unit of the times, and filters.
        job: Job of the recording.
        removed: Number of events that each filter removed, which is extended.

    Raises:
        DecodeError: If it cannot be read or its coordinates do not fit any sensor.
    """
    folder = job.target.with_name(f".{job.source.name}.{number}.{part_owner()}.part")
    tick = seconds_per_tick(reader, settings.time_unit or MICROSECOND) / MICROSECOND
    try:
        spool = EventSpool(folder, stream.sensor, tick)
        for block in read_blocks(reader, number):
            spool.add(block)
            still_working()
        spool.finish()
        if settings.filters.active and spool.count:
            spool = filter_spool(spool, settings.filters, removed)
        yield spool
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_parts(
    spool: EventSpool, stream: StreamInfo, settings: CutSettings, job: Job, counts: dict[str, int], empty: list[str]
) -> None:
    """Write the files of a stream.

    Args:
        spool: Events of the stream.
        stream: Name and label of the stream.
        settings: How to cut it.
        job: Job of the recording.
        counts: The number of events in each file, which is extended.
        empty: The names of labeled parts without events, which is extended.

    Raises:
        OSError: If a file does not contain what was written.
    """
    if not spool.count:
        return
    for file, part in _cut(spool, stream, settings, job):
        name = file.relative_to(job.target.parent).as_posix()
        expected = spool.count if part is None else len(part)
        if not expected:
            empty.append(name)
            continue
        still_working()
        if part is None:
            with atomic_path(file) as written:
                spool.write_npz(written)
        else:
            save_events(file, part)
        counts[name] = Recording(file).n
        if counts[name] != expected:
            raise OSError(f"{file} contains {counts[name]} of {expected} events")


def _cut(
    spool: EventSpool, stream: StreamInfo, settings: CutSettings, job: Job
) -> Iterator[tuple[Path, EventColumns | None]]:
    """Yield the files of a stream and the events of each; None for all of them.

    Yields nothing if there are fewer events than a window needs. Labeled parts may be empty.

    Raises:
        DecodeError: If the labels cannot be read.
    """
    folder = job.target.parent if stream.label is None else job.target.parent / stream.label
    stem = f"{job.target.name}_{stream.name}" if stream.name else job.target.name
    labels = job.source.with_name(job.source.stem + LABELS)
    if labels.exists():
        split = folder / _split_of(job.source)
        for number, part in enumerate(read_gesture_labels(labels)):
            yield split / str(part.label) / f"{stem}_{number}.npz", spool.between(part.start, part.end)
    elif settings.window_time or settings.window_events:
        for number, window in enumerate(_windows(spool, settings)):
            yield folder / f"{stem}_{number:05d}.npz", window
    else:
        yield folder / f"{stem}.npz", None


def _windows(spool: EventSpool, settings: CutSettings) -> Iterator[EventColumns]:
    if settings.window_time:
        return windows_by_time(spool.parts(), settings.window_time, settings.window_step or None)
    return windows_by_count(spool.parts(), settings.window_events, int(settings.window_step) or None)


def _split_of(source: Path) -> str:
    """Return the split of a DVS Gesture recording from the lists next to it. Raises DecodeError if none lists it."""
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
