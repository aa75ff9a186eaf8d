"""Files of N-MNIST and N-Caltech101 (Orchard et al. 2015), and others with events of 40 bits.

The format follows Read_Ndataset.m of the authors: x, y, then 1 bit of polarity and 23 bits of time, big-endian.

Notation: n events of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
)
from slowfast.datasets.dvs.formats.binary import read_records

EVENT = np.dtype([("x", "u1"), ("y", "u1"), ("time", "u1", (3,))])
# Row that marks an overflow of the sensor's counter, and the time that it adds.
OVERFLOW_ROW, OVERFLOW = 240, 2**13
_MAX_BACK = 0.2  # maximum fraction of backward steps in time; the suffix alone is not conclusive


@EVENT_READER_REGISTRY.register(name="n-mnist")
class NMnistReader(EventReader):
    """Reader of .bin files."""

    suffixes, label = (".bin",), "a .bin file of N-MNIST or N-Caltech101"

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Read the events, adding the time of preceding overflows."""
        overflows, first = 0, True
        for records in read_records(self, EVENT, 0, BLOCK_EVENTS):
            high, middle, low = (records["time"][:, byte].astype(np.int64) for byte in range(3))
            t = (high & 0x7F) << 16 | middle << 8 | low
            if first and int(np.count_nonzero(np.diff(t) < 0)) > _MAX_BACK * len(t):
                raise DecodeError("not a file of N-MNIST: the times are not ascending")
            first = False
            x, y, p = records["x"], records["y"], (high >> 7).astype(np.uint8)
            is_overflow = y == OVERFLOW_ROW
            if is_overflow.any():
                count = overflows + np.cumsum(is_overflow)
                overflows = int(count[-1])
                events = ~is_overflow
                t = t[events] + count[events] * OVERFLOW
                x, y, p = x[events], y[events], p[events]
            else:
                t += overflows * OVERFLOW
            yield EventBlock(t, x.astype(np.uint16), y.astype(np.uint16), p)
