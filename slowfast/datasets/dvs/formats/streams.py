"""Result of the readers of raw recordings, and their size limit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.sample import EventColumns

# Largest size of a raw recording in bytes: it is read at once, and its events take up to 60 times as much memory.
MAX_RAW_BYTES = 2**31


@dataclass(frozen=True)
class EventStream:
    """Events of one sensor in a file."""

    events: EventColumns  # in the order of the file
    sensor: tuple[int, int] | None = None  # height and width, if the file contains them
    damage: str | None = None  # description of what could not be read
    name: str = ""  # set if the file contains several streams


def check_raw_size(path: Path) -> None:
    """Raise DecodeError if a raw recording is too large to be read at once."""
    size = path.stat().st_size
    if size > MAX_RAW_BYTES:
        limit = MAX_RAW_BYTES / 2**30
        raise DecodeError(
            f"the size of {size / 2**30:.1f} GiB exceeds the limit of {limit:g} GiB. Split the recording first"
        )


def read_raw_bytes(path: Path) -> bytes:
    """Read a complete raw recording.

    Raises:
        DecodeError: If it is larger than MAX_RAW_BYTES.
    """
    check_raw_size(path)
    return path.read_bytes()
