"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta

from tqdm import tqdm

from slowfast.utils.heartbeat import SILENCE, close_phase, open_phase
from slowfast.utils.logging import get_logger
from slowfast.utils.text import shown

_NARROWEST = 20  # columns


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss."""
    return str(timedelta(seconds=round(max(seconds, 0))))


def _has_room_for_bar() -> bool:
    """Check for a terminal that can move its cursor and is wide enough; some report no width at all.

    With standard output in a file or pipe, the lines belong there.
    """
    try:
        if not sys.stdout.isatty():
            return False
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except (AttributeError, OSError, ValueError):  # no stream, no terminal, a notebook
        return False
    return columns >= _NARROWEST and os.environ.get("TERM") != "dumb"


class Progress:
    """Counter of finished units of work.

    On a terminal each `advance` moves a bar. Elsewhere a line is logged every `every` units, at the end, and whenever
    the last line is SILENCE seconds old; units that take longer are reported by the heartbeat.

    Args:
        title: What is done, such as "train".
        total: Units in all.
        unit: Name of the units, in the plural.
        shown: Whether to show anything; False in every process but the main one.
        every: Units between two lines.
        done: Units that were finished before.
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
        """Count `count` more finished units; `note` is shown beside the bar."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(shown(note), refresh=False)
            self._bar.update(count)
        elif self.shown and (self.done % self.every < count or self.done >= self.total or self._is_due()):
            self._last_line = time.perf_counter()
            get_logger().info(f"{self.title} {self.done}/{self.total} {self.unit}  {note}  left {clock(self.left())}")

    def _is_due(self) -> bool:
        return time.perf_counter() - self._last_line >= SILENCE

    def left(self) -> float:
        """Estimate the seconds left at the pace so far."""
        finished = self.done - self._first
        return (time.perf_counter() - self._start) / max(finished, 1) * (self.total - self.done)

    def close(self) -> None:
        """Leave the terminal's line."""
        close_phase(self._phase)
        if self._bar is not None:
            self._bar.close()
