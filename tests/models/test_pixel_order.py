"""Pixel orders: permutations with the neighborhoods that their names promise."""

from __future__ import annotations

import numpy as np
import pytest

from slowfast.errors import ConfigError
from slowfast.models.eat_pixel_order import PIXEL_ORDERS, pixel_order


def places(name: str, side: int, patch: int = 1) -> np.ndarray:
    """Row and column of each pixel of the sequence, (side^2, 2)."""
    return np.stack(divmod(pixel_order(name, side, patch), side), 1)


@pytest.mark.parametrize("name", PIXEL_ORDERS)
@pytest.mark.parametrize("side", [4, 32])
def test_every_pixel_comes_once(name: str, side: int) -> None:
    order = pixel_order(name, side, 4)
    assert order.dtype == np.int64 and np.array_equal(np.sort(order), np.arange(side * side))


def test_small_ones_by_hand() -> None:
    assert pixel_order("sweep", 3, 1).tolist() == list(range(9))
    assert pixel_order("scan", 3, 1).tolist() == [0, 1, 2, 5, 4, 3, 6, 7, 8]
    assert pixel_order("sis", 4, 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert pixel_order("zorder", 4, 1).tolist() == pixel_order("sis", 4, 2).tolist()
    # as numpy-hilbert-curve and the published code give it
    assert pixel_order("hilbert", 2, 1).tolist() == [0, 2, 3, 1]
    assert pixel_order("hilbert", 4, 1).tolist() == [0, 1, 5, 4, 8, 12, 13, 9, 10, 14, 15, 11, 7, 6, 2, 3]


@pytest.mark.parametrize("patch", [1, 3, 6])
def test_sweep_in_sweep_is_row_major_twice(patch: int) -> None:
    want = [
        (row * patch + i, column * patch + j)
        for row in range(12 // patch)
        for column in range(12 // patch)
        for i in range(patch)
        for j in range(patch)
    ]
    assert places("sis", 12, patch).tolist() == [list(place) for place in want]


@pytest.mark.parametrize("side", [2, 4, 8, 64])
@pytest.mark.parametrize("name", ["scan", "hilbert"])
def test_neighbours_in_the_sequence_are_neighbours_in_the_image(name: str, side: int) -> None:
    assert (np.abs(np.diff(places(name, side), axis=0)).sum(1) == 1).all()


@pytest.mark.parametrize("side", [2, 8, 32])
def test_zorder_takes_turns_between_the_bits_of_column_and_row(side: int) -> None:
    bits = side.bit_length() - 1
    for place, (row, column) in enumerate(places("zorder", side)):
        turns = "".join(r + c for r, c in zip(f"{row:0{bits}b}", f"{column:0{bits}b}", strict=True))
        assert int(turns, 2) == place


@pytest.mark.parametrize("side", [4, 16])
def test_hilbert_fills_each_quarter_before_the_next(side: int) -> None:
    quarters = places("hilbert", side).reshape(4, -1, 2) // (side // 2)
    assert (quarters == quarters[:, :1]).all()


def test_impossible_orders() -> None:
    with pytest.raises(ConfigError, match="power of two, such as 256, not 224"):
        pixel_order("zorder", 224, 16)
    with pytest.raises(ConfigError, match="PATCH_SIZE 16 does not divide the crop of 200"):
        pixel_order("sis", 200, 16)
