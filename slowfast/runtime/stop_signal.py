"""SIGTERM as pre-emption: remember it, let the step finish, save, end. So Ctrl-C, where work may end at any time."""

from __future__ import annotations

import signal
from types import FrameType


class StopSignal:
    """While entered, the first of some signals, SIGTERM by default, sets `seen`; a second one ends the process as
    usual.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self.seen = False
        self._signals = signals or (signal.SIGTERM,)
        self._before: dict[signal.Signals, signal.Handlers | object] = {}

    def __enter__(self) -> StopSignal:
        self._before = {one: signal.signal(one, self._remember) for one in self._signals}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.seen = True
        self._restore()

    def _restore(self) -> None:
        for one, before in self._before.items():
            signal.signal(one, before)  # type: ignore[arg-type]
