"""What the readers of raw recordings give."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.sample import EventColumns

# Bytes of a raw recording, at most: it is read whole, and its events take up to 60 times as much memory.
MOST_RAW_BYTES = 2**31


@dataclass(frozen=True)
class EventStream:
    """The events of one sensor, as a file holds them."""

    events: EventColumns  # in the file's order
    sensor: tuple[int, int] | None = None  # height, width, where the file tells them
    damage: str | None = None  # what of it could not be read
    name: str = ""  # where the file has several


def check_raw_size(path: Path) -> None:
    """Raise DecodeError if a raw recording is too large to be read whole."""
    size = path.stat().st_size
    if size > MOST_RAW_BYTES:
        limit = MOST_RAW_BYTES / 2**30
        raise DecodeError(f"it has {size / 2**30:.1f} GiB; at most {limit:g} GiB are read: cut it into parts first")


def read_raw_bytes(path: Path) -> bytes:
    """Read a raw recording whole.

    Raises:
        DecodeError: If it has more than MOST_RAW_BYTES.
    """
    check_raw_size(path)
    return path.read_bytes()
