"""Events in memory.

n events.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class EventColumns:
    """Events in the order of their times; every array (n,)."""

    x: np.ndarray  # int64, columns of the sensor
    y: np.ndarray  # int64, lines
    t: np.ndarray  # float64, microseconds
    p: np.ndarray  # int64, 0 (darker) or 1 (brighter)

    def __len__(self) -> int:
        return len(self.t)

    def take(self, rows: np.ndarray) -> EventColumns:
        """The events of these numbers, or where a mask is True."""
        return EventColumns(self.x[rows], self.y[rows], self.t[rows], self.p[rows])

    def at(self, t: np.ndarray) -> EventColumns:
        """The same events at other times, in their order."""
        return replace(self, t=t).take(np.argsort(t, kind="stable"))

    @staticmethod
    def join(one: EventColumns, other: EventColumns) -> EventColumns:
        """Both, in the order of their times."""
        columns = [np.concatenate((getattr(one, key), getattr(other, key))) for key in "xytp"]
        return EventColumns(*columns).at(columns[2])
