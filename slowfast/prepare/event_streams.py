"""What the readers of raw recordings give."""

from __future__ import annotations

from dataclasses import dataclass

from slowfast.datasets.dvs.events import EventColumns


@dataclass(frozen=True)
class EventStream:
    """The events of one sensor, as a file holds them."""

    events: EventColumns  # in the file's order
    sensor: tuple[int, int] | None = None  # height, width, where the file tells them
    damage: str | None = None  # what of it could not be read
    name: str = ""  # where the file has several
