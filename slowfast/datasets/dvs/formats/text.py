"""Events as text: .csv and .txt files with an event per line.

Columns are separated by commas, semicolons, tabs or spaces. A first line of names gives their meaning, in any order and
among others; a unit may follow, as in ``t_us`` or ``time [s]``. Without names, four columns are identified by their
values. Lines that start with # or % are comments; a comment ``geometry:WIDTHxHEIGHT`` (Prophesee) or a first line
``WIDTH HEIGHT`` (RPG) states the size of the sensor, or the names do, as in ``x@WIDTH`` (faery).

Notation: n events of a block, k columns.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    EVENT_READER_REGISTRY,
    MICROSECOND,
    EventBlock,
    EventReader,
    Sensor,
    StreamInfo,
    event_suffixes,
)
from slowfast.datasets.dvs.formats.columns import (
    MILLISECOND,
    NAMES,
    NANOSECOND,
    SECOND,
    UNIT_NAMES,
    Polarities,
    choose_columns,
    find_order,
    find_time_unit,
    finite_times,
    to_microseconds,
    whole_pixels,
)

BLOCK_BYTES = 2**20
MAX_LINE = 2**16  # bytes
_SEPARATORS = bytes.maketrans(b",;\t\r", b"    ")
_COMMENT = (b"#", b"%")
_UNIT = re.compile(
    r"(?P<name>.+?)[ _]*[\[(_ ](?P<unit>us|µs|ms|s|ns|sec|microseconds?|milliseconds?|nanoseconds?|seconds?)[\])]?"
)
_UNITS = {"us": MICROSECOND, "µs": MICROSECOND, "ms": MILLISECOND, "s": SECOND, "sec": SECOND, "ns": NANOSECOND}
_UNITS |= {
    f"{prefix}second{s}": unit
    for prefix, unit in (("micro", MICROSECOND), ("milli", MILLISECOND), ("nano", NANOSECOND), ("", SECOND))
    for s in ("", "s")
}
_WORDS = {b"true": b"1", b"false": b"0", b"True": b"1", b"False": b"0"}
_EXPECTED = "Expected lines of four numbers, or names with x, y, t, p in the first line"


@dataclass
class _Layout:
    """Layout of the lines.

    Attributes:
        start: Position of the first line of events.
        line: Its number, from 1.
        width: Number of columns.
        columns: Position of each of x, y, t, p; None to infer them from the values.
        unit: Seconds per tick of the times; None if it is not stated.
        sensor: Sensor height and width in pixels, if stated.
    """

    start: int = 0
    line: int = 1
    width: int = 0
    columns: dict[str, int] | None = None
    unit: float | None = None
    sensor: Sensor | None = None


@EVENT_READER_REGISTRY.register(name="text")
class TextReader(EventReader):
    """Reader of .csv and .txt files."""

    suffixes, label = (".csv", ".txt"), "a list of events"
    time_unit = None

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.layout = _read_layout(path)
        first = next(self._numbers(), None)
        if self.layout.columns is None:
            if first is None:
                raise DecodeError("the recording contains no events")
            order = find_order(first)
            self.layout.columns = {key: order.index(key) for key in "xytp"}
            self.note(f"columns without names read as {', '.join(order)}")
        if self.layout.unit is None and first is not None:
            self.layout.unit = find_time_unit(first[:, self.layout.columns["t"]])
            if self.layout.unit is None and abs(float(first[0, self.layout.columns["t"]])) >= 10**17:
                self.layout.unit = NANOSECOND
            if self.layout.unit is not None:
                self.note(f"times read as {UNIT_NAMES[self.layout.unit]}")
                self.guessed_unit = self.layout.unit
        if self.layout.unit is not None:
            self.time_unit = MICROSECOND
        self.damage.clear()

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """The only stream."""
        return (StreamInfo(sensor=self.layout.sensor),)

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Parse the lines block by block, up to the first one without numbers."""
        polarities, places = Polarities(), self.layout.columns
        assert places is not None
        for values in self._numbers():
            x, y, t, p = (values[:, places[key]] for key in "xytp")
            times = finite_times(t) if self.layout.unit is None else to_microseconds(t, self.layout.unit)
            if (times == np.rint(times)).all():
                times = times.astype(np.int64)
            yield EventBlock(times, whole_pixels(x, "x"), whole_pixels(y, "y"), polarities(p))

    def _numbers(self) -> Iterator[np.ndarray]:
        """Yield the numbers of the lines, float64 (n, k); report what cannot be parsed."""
        line = self.layout.line
        with self.path.open("rb") as file:
            file.seek(self.layout.start)
            rest = b""
            while data := file.read(BLOCK_BYTES):
                complete, newline, rest = (rest + data).rpartition(b"\n")
                if not newline and len(rest) > MAX_LINE:
                    self.report(f"line {line} is too long; the events before were read")
                    return
                values = self._parse(complete, line)
                yield values
                if self.damage:
                    return
                line += complete.count(b"\n") + bool(newline)
            if rest.strip():
                values = self._parse(rest, line)
                yield values

    def _parse(self, text: bytes, line: int) -> np.ndarray:
        """Parse complete lines up to the first damaged one."""
        width = self.layout.width
        rows = text.count(b"\n") + 1
        values = _numbers_of(text)
        if values is not None and len(values) == rows * width:
            return values.reshape(-1, width)
        found: list[np.ndarray] = []
        for number, row in enumerate(text.split(b"\n"), line):
            if not row.strip() or row.lstrip().startswith(_COMMENT):
                continue
            values = _numbers_of(row)
            if values is None or len(values) != width:
                shown = row[:40].decode("utf-8", "replace").strip()
                self.report(f"line {number}: {shown!r} has no {width} numbers; the events before were read")
                break
            found.append(values)
        return np.stack(found) if found else np.empty((0, width))


def _numbers_of(text: bytes) -> np.ndarray | None:
    """Return the numbers of a text; None if it contains anything else."""
    text = text.translate(_SEPARATORS)
    if b"rue" in text or b"alse" in text:
        for word, digit in _WORDS.items():
            text = text.replace(word, digit)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return np.fromstring(text, np.float64, sep=" ")
        except (DeprecationWarning, ValueError):
            return None


def _read_layout(path: Path) -> _Layout:
    """Read the lines before the events.

    Raises:
        DecodeError: If there are no events.
    """
    layout = _Layout()
    with path.open("rb") as file:
        while True:
            layout.start = file.tell()
            row = file.readline(MAX_LINE)
            if not row:
                raise DecodeError(f"the file contains no events. {_EXPECTED}")
            text = row.decode("utf-8-sig", "replace").strip()
            comment = row.lstrip(b"\xef\xbb\xbf \t").startswith(_COMMENT)
            geometry = re.search(r"geometry:\s*(\d+)\s*[x,]\s*(\d+)", text) if comment else None
            if geometry:
                layout.sensor = (int(geometry[2]), int(geometry[1]))
            names, sensor = _without_sizes(text.lstrip("#% "))
            named = _names(names)
            if named is not None and (not comment or layout.columns is None):
                layout.columns, layout.unit, layout.width = named
                layout.sensor = layout.sensor or sensor
            elif text and not comment:
                numbers = _numbers_of(text.encode())
                if numbers is not None and len(numbers) == 2 and layout.sensor is None and not layout.width:
                    layout.sensor = (int(numbers[1]), int(numbers[0]))
                else:
                    return _with_numbers(layout, numbers, text)
            layout.line += 1


def _with_numbers(layout: _Layout, numbers: np.ndarray | None, text: str) -> _Layout:
    """Check the first line of events."""
    if numbers is None or not len(numbers):
        raise DecodeError(f"line {layout.line}: {text[:40]!r} is not an event. {_EXPECTED}")
    if layout.columns is None and len(numbers) != 4:
        raise DecodeError(f"line {layout.line} has {len(numbers)} numbers. {_EXPECTED}")
    if layout.columns is not None and len(numbers) != layout.width:
        # The names in a comment are not column names.
        raise DecodeError(f"line {layout.line} has {len(numbers)} numbers, but there are {layout.width} names")
    layout.width = len(numbers)
    return layout


def _without_sizes(text: str) -> tuple[str, Sensor | None]:
    """Return a line of names without the sizes that faery adds to x and y (``x@640``), and the sensor size."""
    sizes = dict(re.findall(r"\b([xy])@(\d+)", text))
    sensor = (int(sizes["y"]), int(sizes["x"])) if len(sizes) == 2 else None
    return re.sub(r"\b([xy])@\d+", r"\1", text), sensor


def _names(text: str) -> tuple[dict[str, int], float | None, int] | None:
    """Parse a line of column names.

    Returns:
        The position of each of x, y, t, p, the unit of the times if it is named, and the number of columns; None if the
        line has no such names.
    """
    words = [word.strip().strip("\"'").lower() for word in re.split(r"[,;\t]|\s+(?![\[(])", text.strip())]
    units: dict[int, float] = {}
    for place, word in enumerate(words):
        match = _UNIT.fullmatch(word)
        if match and match["name"].rstrip("_ ") in NAMES["t"]:
            words[place], units[place] = match["name"].rstrip("_ "), _UNITS[match["unit"]]
    try:
        chosen = choose_columns(words)
    except DecodeError:
        return None
    places = {key: words.index(name) for key, name in chosen.items()}
    return places, units.get(places["t"]), len(words)


def find_recordings(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Select the files that may be recordings, by their suffixes.

    Args:
        names: Names or relative paths of files.

    Returns:
        The recordings, and the text files next to recordings of other formats, which are assumed to be notes.
    """
    suffixes = event_suffixes()
    known = [name for name in names if PurePath(name).suffix.lower() in suffixes]
    others = [name for name in known if PurePath(name).suffix.lower() not in TextReader.suffixes]
    if not others:
        return known, []
    return others, [name for name in known if PurePath(name).suffix.lower() in TextReader.suffixes]
