"""Recordings as cameras and data sets give them to .npz files, whole or cut, each verified by its count of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.reader import check_file
from slowfast.datasets.dvs.formats import READERS
from slowfast.datasets.dvs.formats.aedat import read_gesture_labels
from slowfast.datasets.dvs.formats.streams import EventStream
from slowfast.datasets.dvs.recording import Recording
from slowfast.datasets.dvs.repair import MAX_STRAY, undo_overflow
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.windows import windows_by_count, windows_by_time
from slowfast.datasets.types import Failure
from slowfast.errors import UserError, system_reason
from slowfast.prepare.events import save_events
from slowfast.prepare.jobs import Converted, Job, Written, convert_videos, failed_to_read
from slowfast.utils.files import write_whole
from slowfast.utils.json_files import from_json, to_json
from slowfast.utils.text_files import MIB, UnreadableTextError, read_text_file
from slowfast.utils.worker import still_working

LABELS = "_labels.csv"  # beside a recording of DVS Gesture, in the place of its suffix
SPLIT_LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}


@dataclass(frozen=True)
class CutSettings:
    """How recordings are cut; raises UserError for values that cannot be used. Both 0: not at all.

    A recording of DVS Gesture with its label file is cut by that.
    """

    window_time: float = 0.0  # microseconds
    window_events: int = 0

    def __post_init__(self) -> None:
        if self.window_time < 0 or self.window_events < 0 or (self.window_time and self.window_events):
            raise UserError("--window-time and --window-events: one of them, above 0")


def cut(events: EventColumns, name: str, settings: CutSettings, job: Job) -> Iterator[tuple[Path, EventColumns]]:
    """The files to write and the events of each: none where there are too few for a window, parts without events too.

    name: of one of several streams, goes into the files' names. Raises DecodeError for labels that cannot be read.
    """
    plain = job.target.with_suffix("")
    stem = f"{plain.name}_{name}" if name else plain.name
    labels = job.source.with_name(job.source.stem + LABELS)
    if labels.exists():
        folder = plain.parent / _split_of(job.source)
        for number, part in enumerate(read_gesture_labels(labels)):
            inside = (events.t >= part.start) & (events.t < part.end)
            yield folder / str(part.label) / f"{stem}_{number}.npz", events.take(inside)
    elif settings.window_time or settings.window_events:
        for number, window in enumerate(_windows(events, settings)):
            yield plain.with_name(f"{stem}_{number:05d}.npz"), window
    else:
        yield plain.with_name(f"{stem}.npz"), events


def _windows(events: EventColumns, settings: CutSettings) -> Iterator[EventColumns]:
    if settings.window_time:
        return windows_by_time([events], settings.window_time)
    return windows_by_count([events], settings.window_events)


def _split_of(source: Path) -> str:
    """train or test, as the lists beside a recording of DVS Gesture say; DecodeError where none names it."""
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
    raise DecodeError(f"none of {', '.join(SPLIT_LISTS.values())} beside it names it")


SETTINGS_FILE = ".convert_events.json"  # in the target folder: how its recordings were cut
MOST_PIXELS = 2**16  # x and y are written as uint16


def convert_recordings(source: Path, target: Path, settings: CutSettings, workers: int) -> Converted:
    """Convert all recordings below `source` to files below `target`: a/b.raw to a/b.npz, or a/b_00000.npz and so on.

    What was converted is noted in .<name>.json beside it and left as it is the next time. Raises UserError for wrong
    folders, for a target that other settings were used for and for a disk that does not take the files, DataError when
    no recording at all can be read.
    """
    _check_settings(target / SETTINGS_FILE, settings)
    work = partial(_convert_one, settings, target / SETTINGS_FILE)
    suffixes = frozenset(READERS)
    return convert_videos(source, target, _is_done, work, "converted", workers, suffixes, "recordings")


def _check_settings(file: Path, settings: CutSettings) -> None:
    """Raise UserError where the file names other settings: files of both would lie side by side."""
    known = _read_note(file)
    if known is not None and known != asdict(settings):
        options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in known.items())
        raise UserError(f"{file.parent} holds recordings converted with {options}; take another folder for others")


def note_file(job: Job) -> Path:
    """Where it is noted that a recording was converted."""
    return job.target.with_name(f".{job.source.name}.json")


def _is_done(job: Job) -> bool:
    """Whether a recording was converted and all its files are there still."""
    note = _read_note(note_file(job))
    return note is not None and all((job.target.parent / name).exists() for name in note.get("files", ()))


def _read_note(file: Path) -> dict | None:
    try:
        note = from_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return note if isinstance(note, dict) else None


def _convert_one(settings: CutSettings, settings_file: Path, job: Job) -> Written | Failure:
    """Convert one recording or return its failure. Runs in a process of the pool."""
    try:
        streams = _read(job.source)
        damage = list(dict.fromkeys(stream.damage for stream in streams if stream.damage))
        total = sum(len(stream.events) for stream in streams)
        if not total:
            raise DecodeError("; ".join(damage) or "it holds no events")
        if not settings_file.exists():
            write_whole(settings_file, to_json(asdict(settings)) + "\n")
        counts, empty = _write_parts(streams, settings, job)
        if not counts:
            raise DecodeError(_nothing_written(total, settings))
        note = {"events": total, "files": counts, "sensors": [stream.sensor for stream in streams]}
        write_whole(note_file(job), to_json(note) + "\n")
    except Exception as error:
        return failed_to_read(job, error, job.target.parent)
    if empty:
        damage.append(f"{len(empty)} labelled parts hold no events and are left out: {', '.join(empty)}")
    return Written("; ".join(damage) or None, _sizes(streams))


def _write_parts(streams: Sequence[EventStream], settings: CutSettings, job: Job) -> tuple[dict[str, int], list[str]]:
    """Write the files; the events of each, and the parts without any."""
    counts: dict[str, int] = {}
    empty: list[str] = []
    for stream in streams:
        if not len(stream.events):
            continue
        for file, part in cut(in_order(stream.events), stream.name, settings, job):
            name = file.relative_to(job.target.parent).as_posix()
            if not len(part):
                empty.append(name)
                continue
            still_working()
            save_events(file, part)
            counts[name] = Recording(file).n
            if counts[name] != len(part):
                raise OSError(f"{file} holds {counts[name]} of {len(part)} events")
    return counts, empty


def _nothing_written(total: int, settings: CutSettings) -> str:
    if total < settings.window_events:
        return f"its {total} events are too few for a window of {settings.window_events}"
    return f"none of its {total} events belongs to a part that its label file names"


def _read(source: Path) -> list[EventStream]:
    check_file(source)
    try:
        streams = READERS[source.suffix.lower()](source)
    except OSError as error:
        raise DecodeError(f"it cannot be read: {system_reason(error)}") from error
    return [_checked(stream) for stream in streams]


def _checked(stream: EventStream) -> EventStream:
    """The stream; DecodeError where its places are no pixels, or too many are not of the sensor that its file names."""
    x, y = stream.events.x, stream.events.y
    if not len(x):
        return stream
    found = f"x {x.min()} to {x.max()}, y {y.min()} to {y.max()}"
    if min(x.min(), y.min()) < 0 or max(x.max(), y.max()) >= MOST_PIXELS:
        raise DecodeError(f"not all of its events lie on pixels ({found})")
    height, width = stream.sensor or (MOST_PIXELS, MOST_PIXELS)
    off = int(((x >= width) | (y >= height)).sum())
    if off > MAX_STRAY * len(x):
        raise DecodeError(f"{off} of {len(x)} events lie off its sensor of {height} x {width} pixels ({found})")
    return stream


def _sizes(streams: Sequence[EventStream]) -> str | None:
    """What to tell of the sensors' sizes, where the file tells them."""
    sizes = sorted({stream.sensor for stream in streams if stream.sensor is not None})
    return ", ".join(f"DVS.SENSOR_SIZE [{height},{width}]" for height, width in sizes) or None


def in_order(events: EventColumns) -> EventColumns:
    """The events in the order of their times, a counter's overflow undone."""
    unwrapped = undo_overflow(events.t) if len(events) else None
    events = events if unwrapped is None else EventColumns(events.x, events.y, unwrapped, events.p)
    return events if (np.diff(events.t) >= 0).all() else events.at(events.t)
