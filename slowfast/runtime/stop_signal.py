"""SIGTERM as pre-emption: remember it, let the step finish, save, end."""

from __future__ import annotations

import signal
from types import FrameType


class StopSignal:
    """While entered, the first SIGTERM sets `seen`; a second one ends the process as usual."""

    def __init__(self) -> None:
        self.seen = False
        self._before: signal.Handlers | object = signal.SIG_DFL

    def __enter__(self) -> StopSignal:
        self._before = signal.signal(signal.SIGTERM, self._remember)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)  # type: ignore[arg-type]

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.seen = True
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
