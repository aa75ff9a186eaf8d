"""Interface and registry of the readers of event recordings.

A reader is one class in one file of this package, or in a user's own module (``--import``):

.. code-block:: python

    @EVENT_READER_REGISTRY.register()
    class MyFormat(EventReader):
        suffixes, label = (".myf",), "my format"

        def blocks(self, stream=0):
            ...  # yield EventBlock(t, x, y, p)

Notation: n events of a block or recording.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.reader import check_file
from slowfast.datasets.dvs.formats.columns import Column
from slowfast.errors import UserError, system_reason
from slowfast.utils.registry import ClassRegistry

# Events per block: their columns fit into the cache of a core.
BLOCK_EVENTS = 2**16
# Limits of what is read or decompressed at once, so that a small file cannot exhaust the memory. docs/EVENT_CAMERAS.md
# states them.
MAX_EVENTS = 2**26
MAX_BYTES = 2**31  # all columns together
MICROSECOND = 1e-6
_HEAD = 4096  # first bytes of a file, used to detect its format
_SHOWN = 200  # maximum characters of another package's message

Sensor = tuple[int, int]  # height, width

# Sensors of event cameras. iniVation's are found by these names, without case and punctuation, in headers of files.
CAMERAS: dict[str, Sensor] = {
    "dvs128": (128, 128),
    "dvs132s": (104, 132),
    "davis128": (128, 128),
    "davis208": (192, 208),
    "davis240": (180, 240),
    "davis346": (260, 346),
    "davis640": (480, 640),
    "dvxplorerlite": (240, 320),
    "dvxplorer": (480, 640),
    "propheseegen1": (240, 304),  # ATIS
    "propheseegen3": (480, 640),
    "propheseegen4": (720, 1280),  # EVK4
}
# Sensors that public recordings without a stated size come from, by size.
COMMON_SENSORS = tuple(
    CAMERAS[name] for name in ("dvs128", "davis240", "propheseegen1", "davis346", "dvxplorer", "propheseegen4")
)


class EventBlock(NamedTuple):
    """Consecutive events of a stream in the order of the file; every array has shape (n,)."""

    t: np.ndarray  # int64 or float64, ticks of the reader's `time_unit`
    x: np.ndarray  # integers, column of the pixel
    y: np.ndarray  # integers, row of the pixel, 0 at the top
    p: np.ndarray  # uint8, 0 (darker) or 1 (brighter)

    @classmethod
    def empty(cls, n: int = 0) -> EventBlock:
        """Return uninitialized arrays of the usual types."""
        return cls(np.empty(n, np.int64), np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.uint8))


# Where a decoder may put its next events, at most the given number.
Space = Callable[[int], EventBlock]


@dataclass(frozen=True)
class StreamInfo:
    """Stream of events in a file.

    Attributes:
        name: Name in the names of converted files; empty if the file contains only one stream.
        sensor: Sensor height and width in pixels, if the file or its format states them.
        label: Class of the stream, for files that contain the samples of a dataset.
    """

    name: str = ""
    sensor: Sensor | None = None
    label: str | None = None


class EventReader(ABC):
    """Open event recording, read in blocks.

    Args:
        path: A regular file with one of the suffixes, for which :meth:`accepts` returned True.

    Raises:
        DecodeError: If the file is damaged or has another format.
        UserError: If a package that the format needs is not installed.

    Attributes:
        suffixes: File suffixes of the format, in lower case.
        label: Name of the format, for messages.
        time_unit: Seconds per tick of `t`; None if unknown from format and values. DVS.TIME_UNIT is then used.
        guessed_unit: Unit inferred from the values, in seconds, from which `t` was converted to microseconds.
        space: Memory for the events of decoders; the blocks are then valid until the next one only. None for arrays of
            their own.
        damage: Description of what could not be read, complete once the blocks have been read.
        notes: Assumptions that the values suggest but the format does not state.
    """

    suffixes: ClassVar[tuple[str, ...]]
    label: ClassVar[str]
    time_unit: float | None = MICROSECOND
    guessed_unit: float | None = None
    space: Space | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[str] = []
        self.notes: list[str] = []

    @classmethod
    def accepts(cls, path: Path, head: bytes) -> bool:
        """Return whether a file with one of the suffixes has this format.

        Args:
            path: The file.
            head: Its first bytes.
        """
        return True

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Streams of the file, at least one."""
        return (StreamInfo(),)

    @abstractmethod
    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Yield the events of a stream in the order of the file, in blocks of bounded size.

        Of a truncated or damaged file the events before the damage are yielded, and `damage` describes it.

        Args:
            stream: Position in :attr:`streams`.

        Raises:
            DecodeError: If the content is invalid.
        """

    def columns(self) -> Mapping[str, Column] | None:
        """Return columns x, y, t, p for random access to events; None if the format does not support it."""
        return None

    def report(self, damage: str) -> None:
        """Record damage once, although a file may be read several times."""
        if damage not in self.damage:
            self.damage.append(damage)

    def note(self, text: str) -> None:
        """Record an assumption once."""
        if text not in self.notes:
            self.notes.append(text)


EVENT_READER_REGISTRY: ClassRegistry[EventReader] = ClassRegistry(
    "EVENT_READER",
    EventReader,  # type: ignore[type-abstract]
)


def event_suffixes() -> frozenset[str]:
    """Return the suffixes of all registered formats."""
    return frozenset(suffix for _, reader in EVENT_READER_REGISTRY for suffix in reader.suffixes)


def open_events(path: Path) -> EventReader:
    """Open an event recording with the last registered reader that accepts its suffix and content.

    Raises:
        DecodeError: If it is missing, empty, not a regular file, damaged, or no reader accepts it.
        UserError: If a package that its format needs is not installed.
    """
    check_file(path)
    suffix = path.suffix.lower()
    known = [reader for _, reader in EVENT_READER_REGISTRY if suffix in reader.suffixes]
    if not known:
        raise DecodeError(f"unknown suffix. Event recordings end in {' '.join(sorted(event_suffixes()))}")
    with guarded(path), path.open("rb") as file:
        head = file.read(_HEAD)
    with guarded(path):
        for reader in reversed(known):
            if reader.accepts(path, head):
                return reader(path)
    start = head[:14].decode("latin-1").strip()
    raise DecodeError(f"not {' or '.join(reader.label for reader in known)} (starts with {start!r})")


def sensor_of_camera(text: str) -> Sensor | None:
    """Return the sensor size of the first camera that a text names; None if it names none."""
    name = re.sub(r"[^a-z0-9]", "", text.lower())
    return next((size for camera, size in CAMERAS.items() if camera in name), None)


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Convert unexpected errors of any package for a damaged file to DecodeError."""
    try:
        yield
    except (DecodeError, UserError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DecodeError(f"the file cannot be read: {system_reason(error)}") from error
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:_SHOWN]
        raise DecodeError(f"not a readable {path.suffix} file: {line}") from error


def seconds_per_tick(reader: EventReader, configured: float) -> float:
    """Return the unit of the times that a reader yields, in seconds.

    Args:
        reader: Reader of a recording.
        configured: DVS.TIME_UNIT or an option. It counts for formats that state no unit and, unless it is the default,
            over a unit that was guessed.
    """
    if reader.guessed_unit is not None and configured != MICROSECOND:
        return configured * MICROSECOND / reader.guessed_unit
    return configured if reader.time_unit is None else reader.time_unit


def read_blocks(reader: EventReader, stream: int = 0) -> Iterator[EventBlock]:
    """Yield the blocks of a stream without empty ones; errors of damaged files become DecodeError."""
    blocks = reader.blocks(stream)
    while True:
        with guarded(reader.path):
            block = next(blocks, None)
        if block is None:
            return
        if len(block.t):
            yield block


def check_count(events: int) -> None:
    """Raise DecodeError if a recording has too many events to be read at once."""
    if events > MAX_EVENTS:
        raise DecodeError(f"{events} events exceed the limit of {MAX_EVENTS} that are read at once")


def check_unpacked_size(size: int) -> None:
    """Raise DecodeError if columns have too many bytes after decompression."""
    if size > MAX_BYTES:
        raise DecodeError(f"{size / 2**30:.1f} GiB after decompression exceed the limit of {MAX_BYTES / 2**30:g} GiB")
