"""Choice between compiled kernels and PyTorch for every number of rows, based on measured times."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

MARGIN = 0.03  # relative gain required to switch implementations, so that noise does not matter


@dataclass(frozen=True)
class StageTimes:
    """Times of a stage with both implementations.

    Args:
        rows: Numbers of rows, ascending.
        compiled: Seconds of the compiled kernels for each of them.
        pytorch: Seconds of PyTorch for each of them.
    """

    rows: Sequence[int]
    compiled: Sequence[float]
    pytorch: Sequence[float]


@dataclass(frozen=True)
class Choice:
    """Implementation of a stage for every number of rows.

    Args:
        pytorch: Use PyTorch for one row, otherwise the compiled kernels.
        switches: Numbers of rows from which on the other implementation is used, ascending.
    """

    pytorch: bool
    switches: tuple[int, ...] = ()

    def uses_pytorch(self, rows: int) -> bool:
        """Return whether PyTorch runs this many rows."""
        return self.pytorch != bool(bisect_right(self.switches, rows) % 2)

    @property
    def needs(self) -> set[bool]:
        """Possible results of :meth:`uses_pytorch`, which determine the weights to keep."""
        return {self.pytorch, self.pytorch != bool(self.switches)}


def choose(times: StageTimes) -> Choice:
    """Choose the faster implementation for every number of rows.

    At each measured number of rows the chosen one takes at most 1 + ``MARGIN`` times as long as the other: another is
    chosen only if it is faster by more, as seen from fewer rows; for one row, the compiled kernels are the one to beat.
    Between two measured numbers the ratio of times is interpolated on logarithmic scales, and beyond the last nothing
    changes.
    """
    gains = [math.log(compiled / pytorch) for compiled, pytorch in zip(times.compiled, times.pytorch, strict=True)]
    margin = math.log1p(MARGIN)
    first = now = gains[0] > margin
    switches = []
    for i in range(1, len(gains)):
        # Gains of the other implementation over the current one.
        before, here = (-gains[i - 1], -gains[i]) if now else (gains[i - 1], gains[i])
        if here > margin:
            switches.append(_crossing(times.rows[i - 1], times.rows[i], before, here))
            now = not now
    return Choice(first, tuple(switches))


def _crossing(rows: int, more_rows: int, before: float, here: float) -> int:
    """Return the number of rows, after `rows`, at which a logarithmic gain becomes positive."""
    part = max(-before, 0.0) / (here - before)
    return min(max(math.ceil(rows * (more_rows / rows) ** part), rows + 1), more_rows)
