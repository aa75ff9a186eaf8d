"""Progress of long-running work: a progress bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta

from tqdm import tqdm

from slowfast.utils.logging import get_logger
from slowfast.utils.screen import SILENCE, close_phase, open_phase
from slowfast.utils.text import sanitize

_NARROWEST = 20  # columns


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
            get_logger().info(f"{self.title} {self.done}/{self.total} {self.unit}  {note}  left {clock(self.left())}")

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
