"""Standard output and standard error of a command: text goes there safely, and a closed or full one ends nothing."""

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

from slowfast.utils.text import shown, shown_lines


class _Unbreakable(io.FileIO):
    """File descriptor whose write errors are kept in `failure` instead of being raised."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write bytes; pretend success where the pipe is closed or the disk is full."""
        try:
            written = super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            return len(data)
        return len(data) if written is None else written  # None: it would block, and nobody reads


@contextmanager
def safe_streams() -> Iterator[None]:
    """Let a command outlive its terminal.

    While entered, a closed pipe (``| head -1``), a full disk and a stream that is not open at all raise no error, and
    characters that the encoding of a stream lacks become backslash escapes. Streams that were replaced, as in a
    notebook, are left alone.
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
    """Open the null device in place of closed standard streams, so that no file of the run gets their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


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
    """Return why standard output did not take everything; None if it did, or if its reader has closed the pipe."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = raw.failure if isinstance(raw, _Unbreakable) else None
    return None if failure is None or failure.errno == errno.EPIPE else failure


def show(line: str = "", *, error: bool = False) -> None:
    """Print one line of any content to standard output, or to standard error."""
    write_screen(shown(line) + "\n", sys.stderr if error else sys.stdout)


def show_table(text: str) -> None:
    """Print a text of several lines whose cells were escaped before."""
    write_screen(shown_lines(text) + "\n", sys.stdout)


_last_write = time.monotonic()


def write_screen(text: str, stream: TextIO | None) -> None:
    """Write text that may be shown, above the progress bar where there is one."""
    global _last_write
    _last_write = time.monotonic()
    if stream is None:
        return
    with tqdm.external_write_mode(file=stream) if progress_bar_shown() else nullcontext():
        stream.write(text)
        stream.flush()


def seconds_silent() -> float:
    """Return the seconds since something was written to the screen."""
    return time.monotonic() - _last_write


def progress_bar_shown() -> bool:
    """Check whether there is a progress bar on the terminal."""
    return len(getattr(tqdm, "_instances", ())) > 0
