"""Time limit for work in the main thread."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_LONGEST = 1e8  # seconds; timers know no longer ones everywhere


@contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
    """Raise `error` in the block when it takes longer.

    There is no limit for 0 seconds, outside of the main thread and while an alarm of someone else is set. A call into
    C code that does not return is not interrupted.
    """
    alarm_is_free = signal.getitimer(signal.ITIMER_REAL)[0] == 0
    if seconds <= 0 or threading.current_thread() is not threading.main_thread() or not alarm_is_free:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, _LONGEST))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
