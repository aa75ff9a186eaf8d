"""Extreme values for tests of all config keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONG = 5000  # letters
NUMBERS = ("0", "-1", "1", "-0.0", "2.5", "1e-300", "1e300", "1e400", "nan", "-inf", "1000000000", "9" * 19, "9" * 5000)
TEXTS = (
    "",
    " ",
    "x",
    "a\0b",
    "\n",
    "\t",
    "\udcff",
    "x" * LONG,
    "x/" * (LONG // 2),
    "../" * 500,
    "{",
    "{}",
    "{0.__class__}",
)
LISTS = (
    "[]",
    "[0]",
    "[-1]",
    "[1,2,3,4,5,6,7]",
    "[nan,nan]",
    "[1e300,1e300,1e300]",
    "[1000000000,1000000000]",
    "[[1]]",
    "[" * 500,
    "[" + ",".join(["1"] * 5000) + "]",
)
WORDS = ("true", "off", "null", "2024-01-01", "0x10", "010", "1:30", "!!python/name:os.system", "*a", "&a 1")
PYTHON: tuple[Any, ...] = (
    None,
    True,
    10**5000,
    -(10**5000),
    float("nan"),
    float("inf"),
    1j,
    b"x",
    {},
    {"A": 1},
    [],
    [[]],
)


def extreme_values(default: Any) -> Iterator[Any]:
    """Yield values as strings of a command line and as Python values, for lists also lists of the right length."""
    yield from NUMBERS
    yield from TEXTS
    yield from LISTS
    yield from WORDS
    yield from PYTHON
    yield Path("a\0b")
    if isinstance(default, list):
        for text in ("0", "1", "3", "16384", "65536", "1e-300", "1000"):
            yield "[" + ",".join([text] * len(default)) + "]"
        yield [default]
    elif isinstance(default, int) and not isinstance(default, bool):
        yield from (2, 3, 7, 1000, 1024, 4096, 10_000, 16_384, 65_536, 10**6, 2**31, 2**62)
    elif isinstance(default, float):
        yield from (1e-12, 1e-6, 0.5, 0.999999, 1.0, 1000.0, 1e6, 1e12)
