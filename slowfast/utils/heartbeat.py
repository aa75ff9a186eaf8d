"""A line about long work that says nothing by itself, so that a piped run never looks dead."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from slowfast.utils.screen import progress_bar_shown, seconds_silent

SILENCE = 10.0  # seconds without output before a line is printed
_CHECK_EVERY = 1.0


@dataclass(eq=False)
class Phase:
    """Part of a run, such as "drawing plots"; the innermost one that is open is reported."""

    describe: Callable[[], str]
    began: float = field(default_factory=time.monotonic)


_phases: list[Phase] = []
# A fork while the heartbeat prints would leave the locks of the stream held in the child for ever.
_printing = threading.Lock()
os.register_at_fork(before=_printing.acquire, after_in_parent=_printing.release, after_in_child=_printing.release)


def open_phase(describe: Callable[[], str]) -> Phase:
    """Begin a part of the run; `describe` is called for each line."""
    _phases.append(Phase(describe))
    return _phases[-1]


def close_phase(phase: Phase) -> None:
    """End a part of the run; does nothing if it has ended."""
    if phase in _phases:
        _phases.remove(phase)


@contextmanager
def phase(what: str) -> Iterator[None]:
    """Name what is done inside, for the line that appears when nothing else is printed, such as "drawing plots"."""
    opened = open_phase(lambda: what)
    try:
        yield
    finally:
        close_phase(opened)


class Heartbeat(threading.Thread):
    """Thread that prints a line whenever nothing was printed for SILENCE seconds and no progress bar is shown.

    Args:
        tell: Prints or logs one line.
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
        """Start the heartbeat of this process in place of one that is running."""
        cls.end()
        cls._running = cls(tell)
        cls._running.start()

    @classmethod
    @contextmanager
    def unless_running(cls, tell: Callable[[str], None]) -> Iterator[None]:
        """While entered, have a heartbeat; one that is running, or is begun meanwhile, takes precedence."""
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
        """Stop the heartbeat, if it is running."""
        if cls._running is not None:
            cls._running._ended.set()
            cls._running.join()
            cls._running = None
