"""Order of unnamed columns and unit of the times, inferred from the values.

Notation: n events, k columns.
"""

from __future__ import annotations

import numpy as np

from slowfast.datasets.decode import DecodeError

MILLISECOND, SECOND, NANOSECOND = 1e-3, 1.0, 1e-9
UNIT_NAMES = {MILLISECOND: "milliseconds", SECOND: "seconds", NANOSECOND: "nanoseconds"}
# Column orders used by public datasets and programs, the most common one first.
ORDERS = ("txyp", "xytp", "xypt", "pxyt", "ptxy", "pyxt", "xypt", "tpxy")
MAX_COORDINATE = 2**16
# Larger integers cannot be microseconds: they would correspond to the year 5000.
_NANOSECONDS_FROM = 10**17
# More events per second than any sensor has.
_IMPOSSIBLE_RATE = 1e8
_SMALLEST_TICK = 1e-2  # deviation from an integer that counts as rounding


def find_order(values: np.ndarray) -> str:
    """Find the order of four columns.

    The polarity has two values, x and y are coordinates, and the time does not decrease; a decimal fraction is a time.

    Args:
        values: The first events, numbers of shape (n, 4).

    Returns:
        A permutation of ``txyp``: the meaning of each column.

    Raises:
        DecodeError: If no order agrees with the values.
    """
    columns = [values[:, number] for number in range(4)]
    polarity = [bool(np.isin(c, (0, 1)).all() or np.isin(c, (-1, 1)).all()) for c in columns]
    pixels = [bool((c == np.rint(c)).all() and c.min() >= 0 and c.max() < MAX_COORDINATE) for c in columns]
    fitting = [
        order
        for order in dict.fromkeys(ORDERS)
        if polarity[order.index("p")] and pixels[order.index("x")] and pixels[order.index("y")]
    ]
    if not fitting or (len(values) > 1 and bool((values == values[0]).all())):
        raise DecodeError(
            "the table has no named columns, and its values do not show which contain polarities (0 and 1, or "
            "-1 and 1), coordinates and times. Name the columns x, y, t, p"
        )
    return max(fitting, key=lambda order: _as_time(columns[order.index("t")]))


def _as_time(column: np.ndarray) -> tuple[float, float]:
    """Return how much a column resembles the time: the fraction of steps that are not backward, then the range."""
    steps = np.diff(column)
    forward = float((steps >= 0).mean()) if len(steps) else 1.0
    changes = float((steps != 0).mean()) if len(steps) else 0.0
    # A constant column never decreases, but it is not a time.
    return forward if changes else 0.5, float(column.max() - column.min())


def find_time_unit(t: np.ndarray) -> float | None:
    """Infer the unit of times from the grid of microseconds.

    Args:
        t: The first times (n,).

    Returns:
        Seconds per tick; None for times that may be microseconds: integers, or fractions on no grid.
    """
    if not len(t):
        return None
    if t.dtype.kind != "f" or bool((t == np.rint(t)).all()):
        return NANOSECOND if abs(float(t[0])) >= _NANOSECONDS_FROM else None
    duration = float(t.max() - t.min())
    for unit in (MILLISECOND, SECOND):
        too_fast = len(t) > _IMPOSSIBLE_RATE * duration * unit and len(t) > 1
        if _on_grid(t, unit / 1e-6) and not (unit == MILLISECOND and too_fast):
            return unit
    return SECOND if _on_grid(t, SECOND / NANOSECOND) else None


def _on_grid(t: np.ndarray, scale: float) -> bool:
    """Return whether times multiplied by a factor are integers up to rounding."""
    scaled = t * scale
    allowed = np.minimum(np.maximum(_SMALLEST_TICK, 2 * np.spacing(np.abs(t)) * scale), 0.5)
    return bool((np.abs(scaled - np.rint(scaled)) <= allowed).all())


def to_microseconds(t: np.ndarray, unit: float) -> np.ndarray:
    """Convert times to microseconds, float64 (n,); rounding errors of decimal fractions are removed."""
    if t.dtype.kind != "f" and unit == NANOSECOND:
        return t.astype(np.int64) / 1000  # exact for whole microseconds
    scaled: np.ndarray = t.astype(np.float64) * (unit / 1e-6)
    whole = np.rint(scaled)
    error = np.maximum(_SMALLEST_TICK, 2 * np.spacing(np.abs(t)).astype(np.float64) * (unit / 1e-6))
    return np.where(np.abs(scaled - whole) <= error, whole, scaled)
