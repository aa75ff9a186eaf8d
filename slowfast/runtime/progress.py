"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from tqdm import tqdm

from slowfast.runtime.logging import get_logger


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    return str(timedelta(seconds=round(max(seconds, 0))))


class Progress:
    """Counts units of work up to `total`; `shown` is False in every process but the main one.

    On a terminal each `advance` moves a bar; elsewhere a line is logged every `every` units and at the end.
    """

    def __init__(self, title: str, total: int, unit: str, shown: bool, every: int, done: int = 0) -> None:
        self.title, self.total, self.unit, self.every, self.done = title, total, unit, every, done
        self.shown = shown
        self._first, self._start = done, time.perf_counter()
        bar = shown and sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=title, unit=unit, dynamic_ncols=True) if bar else None

    def advance(self, note: str = "", count: int = 1) -> None:
        """`count` more units are done; `note` stands beside the bar."""
        self.done += count
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(count)
        elif self.shown and (self.done % self.every < count or self.done >= self.total):
            get_logger().info(f"{self.title} {self.done}/{self.total} {self.unit}  {note}  left {clock(self.left())}")

    def left(self) -> float:
        """Seconds left at the pace so far."""
        finished = self.done - self._first
        return (time.perf_counter() - self._start) / max(finished, 1) * (self.total - self.done)

    def close(self) -> None:
        """Leave the terminal's line."""
        if self._bar is not None:
            self._bar.close()
