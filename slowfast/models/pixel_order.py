"""Orders in which the pixels of a square image make one sequence (EAT, arXiv 2105.15089, section 3.3).

Each gives int64 (side x side,): entry i is the row-major index of the i-th pixel of the sequence.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from slowfast.errors import ConfigError

SWEEP_IN_SWEEP = "sis"


def _sweep(side: int, patch: int) -> np.ndarray:
    """Row by row, each from the left."""
    return np.arange(side * side)


def _scan(side: int, patch: int) -> np.ndarray:
    """Row by row, every second one from the right."""
    rows = np.arange(side * side).reshape(side, side)
    rows[1::2] = rows[1::2, ::-1].copy()
    return rows.reshape(-1)


def _sweep_in_sweep(side: int, patch: int) -> np.ndarray:
    """Patch by patch, row by row in and across patches."""
    n = side // patch
    pixels = np.arange(side * side).reshape(n, patch, n, patch)
    return pixels.transpose(0, 2, 1, 3).reshape(-1)  # rows and columns of patches, then of pixels


def _zorder(side: int, patch: int) -> np.ndarray:
    """Morton's curve: the even bits of a place are its column, the odd ones its row."""
    place = np.arange(side * side)
    row, column = np.zeros_like(place), np.zeros_like(place)
    for bit in range(side.bit_length() - 1):
        column |= (place >> 2 * bit & 1) << bit
        row |= (place >> 2 * bit + 1 & 1) << bit
    return row * side + column


def _hilbert(side: int, patch: int) -> np.ndarray:
    """Hilbert's curve from the top left corner, in the direction of the published code's numpy-hilbert-curve.

    A curve of twice the side: the old one mirrored in its diagonal, itself twice, and mirrored in its other diagonal.
    """
    curve = np.zeros((1, 2), np.int64)  # row, column
    size = 1
    while size < side:
        mirrored = curve[:, ::-1]
        quarters = (mirrored, curve + [size, 0], curve + [size, size], [size - 1, 2 * size - 1] - mirrored)
        curve = np.concatenate(quarters)
        size *= 2
    return curve[:, 0] * side + curve[:, 1]


PIXEL_ORDERS: dict[str, Callable[[int, int], np.ndarray]] = {
    SWEEP_IN_SWEEP: _sweep_in_sweep,
    "sweep": _sweep,
    "scan": _scan,
    "zorder": _zorder,
    "hilbert": _hilbert,
}
POWERS_OF_TWO = frozenset({"zorder", "hilbert"})


def check_pixel_order(name: str, side: int, patch: int) -> None:
    """Raise ConfigError unless the order exists for an image of this side (pixels), cut into patch x patch tokens."""
    if side % patch:
        raise ConfigError(f"EAT.PATCH_SIZE {patch} does not divide the crop of {side} pixels")
    if name in POWERS_OF_TWO and side & (side - 1):
        raise ConfigError(
            f"EAT.PIXEL_ORDER {name} needs a crop whose side is a power of two, such as 256, not {side} pixels"
        )


def pixel_order(name: str, side: int, patch: int) -> np.ndarray:
    """The order of that name for a side x side image. Raises ConfigError where `check_pixel_order` does."""
    check_pixel_order(name, side, patch)
    return PIXEL_ORDERS[name](side, patch)


def token_grid(order: np.ndarray, side: int, patch: int) -> np.ndarray | None:
    """Where each token lies on the grid of patch x patch squares, row by row: int64 (N,) for an order of pixels.

    None where a token, patch x patch pixels in a row of the order, is no such square.
    """
    row, column = np.divmod(order.reshape(-1, patch * patch), side)
    place = row // patch * (side // patch) + column // patch
    return place[:, 0] if (place == place[:, :1]).all() else None
