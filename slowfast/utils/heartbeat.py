"""Heartbeat: a line about the current phase whenever a run has been silent for long, so that it never looks dead."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from slowfast.utils.screen import progress_bar_shown, seconds_silent

SILENCE = 10.0  # seconds without output before the heartbeat prints
_CHECK_EVERY = 1.0


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
            if min(seconds_silent(), time.monotonic() - self._began) >= SILENCE and not progress_bar_shown():
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
