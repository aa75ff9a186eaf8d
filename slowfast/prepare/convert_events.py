"""Recordings as cameras and data sets give them to .npz files, whole or cut, each verified by its count of events."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.reader import check_file
from slowfast.datasets.dvs.events import EventColumns
from slowfast.datasets.dvs.recording import SUFFIXES, Recording
from slowfast.datasets.dvs.repair import undo_overflow
from slowfast.errors import UserError
from slowfast.prepare.aedat import read_aedat3, read_gesture_labels
from slowfast.prepare.collection import Job
from slowfast.prepare.convert import Converted, Written, convert_videos
from slowfast.prepare.encode import part_owner
from slowfast.prepare.events import save_events
from slowfast.prepare.prophesee import read_dat, read_raw
from slowfast.streaming.windows import windows_by_count, windows_by_time

PART = ".npz"  # in the names of unfinished files
LABELS = "_labels.csv"  # beside a recording of DVS Gesture, in the place of its suffix
SPLIT_LISTS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}


def read_mat(path: Path) -> EventColumns:
    """A file of ASL-DVS: ts (microseconds), x, y, pol. Raises DecodeError; UserError without SciPy."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(f'.mat files need SciPy ({error}): pip install "slowfast[events]"') from error
    try:
        content = loadmat(path)
        x, y, t, p = (content[key].ravel() for key in ("x", "y", "ts", "pol"))
    except Exception as error:  # SciPy raises many kinds for a damaged file
        raise DecodeError(f"it cannot be read as a .mat file with ts, x, y, pol ({error})") from error
    return EventColumns(x.astype(np.int64), y.astype(np.int64), t.astype(np.float64), (p > 0).astype(np.int64))


READERS: dict[str, Callable[[Path], EventColumns]] = {
    ".aedat": read_aedat3,
    ".dat": read_dat,
    ".raw": read_raw,
    ".mat": read_mat,
}


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


def convert_recordings(source: Path, target: Path, settings: CutSettings, workers: int) -> Converted:
    """Convert all recordings below `source` to files below `target`: a/b.raw to a/b.npz, or a/b_00000.npz and so on.

    What was converted is noted in .<name>.json beside it and left as it is the next time. Raises UserError for wrong
    folders and for a disk that does not take the files, DataError when no recording at all can be read.
    """
    work = partial(_convert_one, settings)
    return convert_videos(source, target, PART, note_file, work, "converted", workers, frozenset(READERS), "recordings")


def note_file(job: Job) -> Path:
    """Where it is noted that a recording was converted."""
    return job.target.with_name(f".{job.source.name}.json")


def _convert_one(settings: CutSettings, job: Job) -> Written | str:
    """Convert one recording, or why it cannot be read. Runs in a process of the pool."""
    try:
        check_file(job.source)
        events = in_order(READERS[job.source.suffix.lower()](job.source))
        if not len(events):
            return "it holds no events"
        counts = {}
        for file, part in _parts(events, settings, job):
            _write(file, part)
            counts[file.relative_to(job.target.parent).as_posix()] = len(part)
        note = note_file(job)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"events": len(events), "files": counts}) + "\n", encoding="utf-8")
    except DecodeError as error:
        return str(error)
    except OSError as error:
        raise UserError(f"{job.target.parent} cannot be written: {(error.strerror or str(error)).lower()}") from error
    return Written(None)


def in_order(events: EventColumns) -> EventColumns:
    """The events in the order of their times, a counter's overflow undone."""
    unwrapped = undo_overflow(events.t) if len(events) else None
    events = events if unwrapped is None else EventColumns(events.x, events.y, unwrapped, events.p)
    return events if (np.diff(events.t) >= 0).all() else events.at(events.t)


def _parts(events: EventColumns, settings: CutSettings, job: Job) -> Iterator[tuple[Path, EventColumns]]:
    """The files to write."""
    plain = job.target.with_suffix("")
    labels = job.source.with_name(job.source.stem + LABELS)
    if labels.exists():
        folder = plain.parent / _split_of(job.source)
        for number, part in enumerate(read_gesture_labels(labels)):
            inside = (events.t >= part.start) & (events.t < part.end)
            if inside.any():
                yield folder / str(part.label) / f"{plain.name}_{number}.npz", events.take(inside)
        return
    if settings.window_time or settings.window_events:
        stream = [events]
        by_time = settings.window_time > 0
        windows = (
            windows_by_time(stream, settings.window_time)
            if by_time
            else windows_by_count(stream, settings.window_events)
        )
        for number, window in enumerate(windows):
            yield plain.with_name(f"{plain.name}_{number:05d}.npz"), window
        return
    yield plain.with_name(f"{plain.name}.npz"), events


def _split_of(source: Path) -> str:
    """train or test, as the lists beside a recording of DVS Gesture say; DecodeError where none names it."""
    for split, name in SPLIT_LISTS.items():
        file = source.with_name(name)
        if file.exists() and source.name in file.read_text(encoding="utf-8").split():
            return split
    raise DecodeError(f"none of {', '.join(SPLIT_LISTS.values())} beside it names it")


def _write(file: Path, events: EventColumns) -> None:
    """Write the file whole and look whether all events are in it."""
    assert file.suffix in SUFFIXES
    part = file.with_name(f".{file.stem}{PART}.{part_owner()}.part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as opened:
            save_events(opened, events)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)
    written = Recording(file).n
    if written != len(events):
        raise OSError(f"{file} holds {written} of {len(events)} events")
