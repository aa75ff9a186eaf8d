"""Types of command-line options, to be given to `argparse` as `type`; their errors name the range."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError
from collections.abc import Callable

from slowfast.utils.quote import quoted

MAX_WORKERS = 1024  # processes


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Return a converter to a whole number from `low` to `high`."""

    def convert(text: str) -> int:
        digits = text.strip().removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdecimal() and len(digits) <= 20 else None
        if value is None or not low <= value <= high:
            raise ArgumentTypeError(f"{quoted(text)} is not a whole number from {low} to {high}")
        return value

    return convert


def number(low: float, high: float) -> Callable[[str], float]:
    """Return a converter to a number from `low` to `high`."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # nor NaN
            raise ArgumentTypeError(f"{quoted(text)} is not a number from {low:g} to {high:g}")
        return value

    return convert


def number_or(word: str, low: float, high: float) -> Callable[[str], float | None]:
    """Return a converter to a number from `low` to `high`, or to None for a word."""
    convert = number(low, high)
    return lambda text: None if text == word else convert(text)


workers = whole_number(1, MAX_WORKERS)
