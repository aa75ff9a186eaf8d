"""Output on the screen: escaped text, progress and a heartbeat; no failure if it is lost (closed pipe, full disk)."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TextIO

from tqdm import tqdm

from slowfast.utils.text import sanitize, sanitize_lines

_LOG = logging.getLogger(__name__)
SILENCE = 10.0  # seconds without output before the heartbeat prints
_CHECK_EVERY = 1.0
_NARROWEST = 20  # columns of a terminal for a progress bar


class _Unbreakable(io.FileIO):
    """Raw file that stores write errors in `failure` instead of raising them."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes; report success even if the pipe is closed or the disk is full."""
        try:
            written = super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            return len(data)
        return len(data) if written is None else written  # None: the write would block and nobody reads


@contextmanager
def safe_streams() -> Iterator[None]:
    """Make standard output and standard error robust while in the context.

    A closed pipe (``| head -1``), a full disk or a closed stream raises no error, and characters that the encoding of
    the stream lacks are written as backslash escapes. Replaced streams, as in a notebook, are not touched.
    """
    before = sys.stdout, sys.stderr
    _open_missing_descriptors()
    if before[0] is sys.__stdout__:
        sys.stdout = _safe(before[0], 1)
    if before[1] is sys.__stderr__:
        sys.stderr = _safe(before[1], 2)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_missing_descriptors() -> None:
    """Open the null device for closed standard streams, so that no other file gets descriptors 0 to 2."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor


def _safe(stream: TextIO | None, number: int) -> TextIO:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
    try:
        stream.flush()
    except OSError:
        pass
    raw = io.BufferedWriter(_Unbreakable(number, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)


def lost_output() -> OSError | None:
    """Return the error because of which standard output was lost; None if there is none or the pipe was closed."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Unbreakable) else None
    return None if failure is None or failure.errno == errno.EPIPE else failure


def show(line: str = "", *, error: bool = False) -> None:
    """Print one line, escaped, to standard output or standard error."""
    write_screen(sanitize(line) + "\n", sys.stderr if error else sys.stdout)


def show_table(text: str) -> None:
    """Print a multi-line table whose cells are already escaped."""
    write_screen(sanitize_lines(text) + "\n", sys.stdout)


_last_write = time.monotonic()


def write_screen(text: str, stream: TextIO | None) -> None:
    """Write escaped text above the progress bar, if any."""
    global _last_write
    _last_write = time.monotonic()
    if stream is None:
        return
    with tqdm.external_write_mode(file=stream) if progress_bar_shown() else nullcontext():
        stream.write(text)
        stream.flush()


def progress_bar_shown() -> bool:
    """Return whether a progress bar is shown."""
    return len(getattr(tqdm, "_instances", ())) > 0


@dataclass(eq=False)
class Phase:
    """Phase of a run, such as "drawing plots". The innermost open phase is reported."""

    describe: Callable[[], str]
    began: float = field(default_factory=time.monotonic)


_phases: list[Phase] = []
# Forking while the heartbeat prints would leave the stream locked in the child process forever.
_printing = threading.Lock()
os.register_at_fork(before=_printing.acquire, after_in_parent=_printing.release, after_in_child=_printing.release)


def open_phase(describe: Callable[[], str]) -> Phase:
    """Begin a phase; `describe` is called for each printed line."""
    _phases.append(Phase(describe))
    return _phases[-1]


def close_phase(phase: Phase) -> None:
    """End a phase; no effect if it has already ended."""
    if phase in _phases:
        _phases.remove(phase)


@contextmanager
def phase(what: str) -> Iterator[None]:
    """Name the work done in the context, such as "drawing plots", for the heartbeat."""
    opened = open_phase(lambda: what)
    try:
        yield
    finally:
        close_phase(opened)


class Heartbeat(threading.Thread):
    """Thread that prints a line after SILENCE seconds without output, unless a progress bar is shown.

    Args:
        tell: Function that prints or logs one line.
    """

    _running: Heartbeat | None = None

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._tell, self._ended, self._began = tell, threading.Event(), time.monotonic()

    def run(self) -> None:
        """Check every second."""
        while not self._ended.wait(_CHECK_EVERY):
            if time.monotonic() - max(_last_write, self._began) >= SILENCE and not progress_bar_shown():
                with _printing:
                    self._tell(self._line())

    def _line(self) -> str:
        now = time.monotonic()
        try:
            current = _phases[-1]
        except IndexError:
            return f"still working ({now - self._began:.0f} s)"
        return f"still {current.describe()} ({now - current.began:.0f} s)"

    @classmethod
    def begin(cls, tell: Callable[[str], None]) -> None:
        """Start the heartbeat of this process, replacing a running one."""
        cls.end()
        cls._running = cls(tell)
        cls._running.start()

    @classmethod
    @contextmanager
    def unless_running(cls, tell: Callable[[str], None]) -> Iterator[None]:
        """Run a heartbeat while in the context, unless one is already running."""
        if cls._running is not None:
            yield
            return
        cls.begin(tell)
        try:
            yield
        finally:
            cls.end()

    @classmethod
    def end(cls) -> None:
        """Stop the heartbeat, if any."""
        if cls._running is not None:
            cls._running._ended.set()
            cls._running.join()
            cls._running = None


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    return str(timedelta(seconds=round(max(seconds, 0))))


def _has_room_for_bar() -> bool:
    """Return whether output goes to a terminal that is wide enough and can move its cursor.

    If standard output is a file or pipe, progress is logged there instead.
    """
    try:
        if not sys.stdout.isatty():
            return False
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (AttributeError, OSError, ValueError):  # no stream, no terminal or a notebook
        return False
    return columns >= _NARROWEST and os.environ.get("TERM") != "dumb"


class Progress:
    """Counter of finished units of work.

    On a terminal `advance` moves a bar. Elsewhere a line is logged every `every` units, at the end, and whenever the
    last line is SILENCE seconds old; the heartbeat covers units that take longer.

    Args:
        title: Name of the work, such as "train".
        total: Total number of units.
        unit: Name of the units, in the plural.
        shown: Whether to show progress; False in all ranks but 0.
        every: Number of units between log lines.
        done: Number of units finished by an earlier run.
    """

    def __init__(self, title: str, total: int, unit: str, shown: bool, every: int, done: int = 0) -> None:
        self.title, self.total, self.unit, self.every, self.done = title, total, unit, every, done
        self.shown = shown
        self._first, self._start = done, time.perf_counter()
        self._last_line = self._start
        bar = shown and _has_room_for_bar()
        self._bar = tqdm(total=total, initial=done, desc=title, unit=unit, dynamic_ncols=True) if bar else None
        self._phase = open_phase(self._state)

    def _state(self) -> str:
        return f"busy: {self.title} {self.done}/{self.total} {self.unit}"

    def advance(self, note: str = "", count: int = 1) -> None:
        """Count finished units and show a note beside the bar."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(sanitize(note), refresh=False)
            self._bar.update(count)
        elif self.shown and (self.done % self.every < count or self.done >= self.total or self._is_due()):
            self._last_line = time.perf_counter()
            _LOG.info(f"{self.title} {self.done}/{self.total} {self.unit}  {note}  left {clock(self.left())}")

    def extend(self, count: int) -> None:
        """Add units to the total, such as those of a file that was opened."""
        self.total += count
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.refresh()

    def _is_due(self) -> bool:
        return time.perf_counter() - self._last_line >= SILENCE

    def left(self) -> float:
        """Return the estimated remaining time in seconds."""
        finished = self.done - self._first
        return (time.perf_counter() - self._start) / max(finished, 1) * (self.total - self.done)

    def close(self) -> None:
        """Close the progress bar."""
        close_phase(self._phase)
        if self._bar is not None:
            self._bar.close()
