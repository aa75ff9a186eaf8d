"""Filters of the conversion of recordings.

The order is fixed: events outside of the sensor that the recording states, hot pixels, background activity, refractory
period, crop, downsampling. Hot pixels are removed first because they would support the noise around them, and the
neighbors beyond the edges of the crop still count for the background activity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.filters import BackgroundFilter, Box, RefractoryFilter, crop_events, downsample_events
from slowfast.datasets.dvs.formats import EventBlock
from slowfast.datasets.dvs.sample import EventColumns
from slowfast.datasets.dvs.statistics import hot_pixels
from slowfast.errors import UserError
from slowfast.prepare.event_spool import KINDS, EventSpool
from slowfast.utils.worker import still_working

# Largest number of sensor pixels; filters need up to 3 x 8 bytes per pixel.
MAX_SENSOR_PIXELS = 2**22
# Names of the counts of removed events.
OUTSIDE = "sensor size"
FILTERS = HOT, BACKGROUND, REFRACTORY, CROP = "--hot-pixels", "--background", "--refractory", "--crop"

Size = tuple[int, int]  # height, width
Mask = Callable[[EventColumns], np.ndarray]


@dataclass(frozen=True)
class FilterSettings:
    """Filters of a conversion, applied in the order of the attributes.

    Args:
        hot_pixels: Whether to remove all events of hot pixels.
        background: Time in microseconds before an event in which a neighbor must have fired; 0 keeps all events.
        refractory: Time in microseconds in which a pixel that has fired stays silent; 0 keeps all events.
        crop: Box of pixels to keep.
        downsample: Factor by which coordinates are divided.

    Raises:
        UserError: If the box contains no pixels.
    """

    hot_pixels: bool = False
    background: int = 0
    refractory: int = 0
    crop: Box | None = None
    downsample: int = 1

    def __post_init__(self) -> None:
        if self.crop is not None and min(self.crop.width, self.crop.height) < 1:
            raise UserError(f"--crop {' '.join(map(str, self.crop))}: WIDTH and HEIGHT must be at least 1")

    @property
    def active(self) -> bool:
        """True if any filter is enabled."""
        return self != FilterSettings()

    def sensor(self, size: Size | None) -> Size | None:
        """Return height and width of a sensor of this size after the filters."""
        if self.crop is not None:
            size = (self.crop.height, self.crop.width)
        return None if size is None else (-(-size[0] // self.downsample), -(-size[1] // self.downsample))


def filter_spool(spool: EventSpool, settings: FilterSettings, removed: Counter[str]) -> EventSpool:
    """Apply filters to the events of a stream, in blocks.

    Args:
        spool: All events of the stream, finished and at least one. Its files are deleted.
        settings: The filters.
        removed: Number of events that each filter removed, which is extended.

    Returns:
        The remaining events, in a folder below that of `spool`.

    Raises:
        DecodeError: If the sensor is too large for a filter.
    """
    masks = _masks(spool, settings)
    filtered = EventSpool(spool.folder / "filtered", settings.sensor(spool.sensor), 1.0)
    for events in spool.parts():
        still_working()
        for name, mask in masks.items():
            kept = mask(events)
            removed[name] += len(kept) - int(np.count_nonzero(kept))
            events = events.take(kept)
        if settings.crop is not None:
            cropped = crop_events(events, settings.crop)
            removed[CROP] += len(events) - len(cropped)
            events = cropped
        if len(events):
            _append(filtered, downsample_events(events, settings.downsample))
    for key in KINDS:
        (spool.folder / key).unlink()
    filtered.finish()
    return filtered


def _append(spool: EventSpool, events: EventColumns) -> None:
    spool.add(EventBlock(events.t.astype(np.int64), events.x, events.y, events.p))


def _masks(spool: EventSpool, settings: FilterSettings) -> Mapping[str, Mask]:
    """Return the enabled filters in order; each returns a mask of the events that it keeps.

    Raises:
        DecodeError: If the sensor is too large for one of them.
    """
    size = spool.sensor or spool.extent

    def inside(events: EventColumns) -> np.ndarray:
        kept: np.ndarray = (events.x < size[1]) & (events.y < size[0])
        return kept

    masks: dict[str, Mask] = {OUTSIDE: inside} if spool.sensor is not None else {}
    stateful = settings.hot_pixels or settings.background or settings.refractory
    if stateful and size[0] * size[1] > MAX_SENSOR_PIXELS:
        raise DecodeError(
            f"{size[0]} x {size[1]} pixels exceed the limit of {MAX_SENSOR_PIXELS} for {HOT}, {BACKGROUND} and "
            f"{REFRACTORY}. Convert the recording without them"
        )
    if settings.hot_pixels:
        cold = ~hot_pixels(_count(spool.parts(), size))
        masks[HOT] = lambda events: cold[events.y, events.x]
    if settings.background:
        masks[BACKGROUND] = BackgroundFilter(size, settings.background)
    if settings.refractory:
        masks[REFRACTORY] = RefractoryFilter(size, settings.refractory)
    return masks


def _count(parts: Iterator[EventColumns], size: Size) -> np.ndarray:
    """Count the events of each pixel of the sensor, int64 (H, W)."""
    counts = np.zeros(size[0] * size[1], np.int64)
    for events in parts:
        still_working()
        inside = (events.x < size[1]) & (events.y < size[0])
        np.add.at(counts, (events.y * size[1] + events.x)[inside], 1)
    return counts.reshape(size)
