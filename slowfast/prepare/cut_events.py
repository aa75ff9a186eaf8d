"""Cutting recordings of events: by label files, into windows, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.events import EventColumns
from slowfast.errors import UserError
from slowfast.prepare.aedat import read_gesture_labels
from slowfast.prepare.collection import Job
from slowfast.streaming.windows import windows_by_count, windows_by_time
from slowfast.utils.text_file import MIB, UnreadableTextError, read_text_file

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
