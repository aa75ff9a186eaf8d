"""How long a loop waits for its data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def timed(items: Iterable[Item], note: Callable[[float], None]) -> Iterator[Item]:
    """The items; the seconds spent waiting for each are given to `note`."""
    source = iter(items)
    while True:
        start = time.perf_counter()
        try:
            item = next(source)
        except StopIteration:
            return
        finally:
            note(time.perf_counter() - start)
        yield item
