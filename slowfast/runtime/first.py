"""First lines of a run, before its libraries are imported: this module imports next to nothing itself."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_DIE_WITH_PARENT = 1  # Linux: prctl's PR_SET_PDEATHSIG


def nothing_to_save(name: str) -> str:
    """Describe the end of a run by a signal before it did anything."""
    return f"Received {name} before anything was to save. Run the same command to start again"


def prepare_process() -> None:
    """Handle signals that arrive while the libraries are imported, and follow the end of torchrun."""
    for one in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) == signal.SIG_DFL:
            signal.signal(one, _leave)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings precede every error that is reported
    if "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_parent()


def ignore_signals() -> None:
    """Let nothing disturb the end of a process that has done its work."""
    for one in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)


def _leave(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0" and sys.stdout is not None:
        try:
            print(nothing_to_save(signal.Signals(number).name), flush=True)
        except OSError:
            pass
    os._exit(0)


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the system send a signal to this process when the thread that started it ends in any way. Linux only."""
    if sys.platform != "linux":
        return
    import ctypes

    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_DIE_WITH_PARENT, number)
