"""Safe printing: escaped text, and output errors (closed pipe, full disk) that do not end the command."""

from __future__ import annotations

import errno
import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TextIO

from tqdm import tqdm

from slowfast.utils.text import sanitize, sanitize_lines


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
    """Return the error that lost standard output; None if there is none or the reader has closed the pipe."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Unbreakable) else None
    return None if failure is None or failure.errno == errno.EPIPE else failure


def show(line: str = "", *, error: bool = False) -> None:
    """Print one line to standard output or standard error, escaping its content."""
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


def seconds_silent() -> float:
    """Return the seconds since the last output."""
    return time.monotonic() - _last_write


def progress_bar_shown() -> bool:
    """Return whether a progress bar is shown."""
    return len(getattr(tqdm, "_instances", ())) > 0
