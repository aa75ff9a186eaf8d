"""Signal handling: on SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 stop at a safe point, save, and exit with status 0."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Sent by terminals and schedulers; Slurm's --signal sends SIGUSR1 or SIGUSR2 before a job ends.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_AGAIN = 5.0  # seconds in which a repeated signal counts as the same one, forwarded by the launcher


class Stopped(BaseException):
    """Raised by a signal while work may be interrupted. Not an Exception, so that no error handler catches it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class StopSignal:
    """Context manager that handles the signals which stop a run.

    The first signal sets `seen` and `name`, and raises `Stopped` inside `at_once`. A second one ends the process as
    usual. SIGHUP stays ignored under nohup. No effect outside the main thread, where Python allows no handlers, and in
    forked processes.

    Args:
        signals: Signals to handle. Defaults to STOP_SIGNALS.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self.seen = False
        self.name = ""
        self._signals = signals or STOP_SIGNALS
        self._before: dict[signal.Signals, signal.Handlers | object] = {}
        self._raises = 0  # nested `at_once` blocks
        self._process, self._when = os.getpid(), 0.0

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for one in self._signals:
                before = signal.getsignal(one)
                if before is not None and (one, before) != (signal.SIGHUP, signal.SIG_IGN):
                    self._before[one] = before
                    signal.signal(one, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return
        if self.seen:
            self._receive_again(number)
            return
        self.seen, self.name, self._when = True, signal.Signals(number).name, time.monotonic()
        if self._raises:
            raise Stopped(self.name)

    def _receive_again(self, number: int) -> None:
        """End the process, unless a launcher has forwarded the same signal."""
        if "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._when < _AGAIN:
            return
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.raise_signal(number)

    @contextmanager
    def at_once(self, wanted: bool = True) -> Iterator[None]:
        """Raise `Stopped` as soon as a signal arrives, or if one has arrived before.

        Args:
            wanted: Whether to do so.
        """
        self._raises += wanted
        try:
            if wanted and self.seen:
                raise Stopped(self.name)
            yield
        finally:
            self._raises -= wanted


_DIE_WITH_PARENT = 1  # Linux: prctl's PR_SET_PDEATHSIG


def nothing_to_save(name: str) -> str:
    """Return the message of a run that was stopped before its first step."""
    return f"Received {name} before the first step, nothing to save. Run the same command to start again"


def prepare_process() -> None:
    """Handle signals that arrive during imports, and exit when the launcher does."""
    for one in STOP_SIGNALS:
        if signal.getsignal(one) == signal.SIG_DFL:
            signal.signal(one, _leave)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # hides C++ warnings that precede every reported error
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()


def ignore_signals() -> None:
    """Ignore signals while a finished process exits."""
    for one in STOP_SIGNALS:
        signal.signal(one, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0" and sys.stdout is not None:
        try:
            print(nothing_to_save(signal.Signals(number).name), flush=True)
        except OSError:
            pass
    os._exit(0)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the system signal this process when the thread that started it ends for any reason. Linux only."""
    if sys.platform != "linux":
        return
    import ctypes

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_DIE_WITH_PARENT, number)
