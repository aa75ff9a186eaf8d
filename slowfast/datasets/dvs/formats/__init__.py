"""Readers of event camera recordings, one format per file; importing this package registers all of them."""

from __future__ import annotations

from slowfast.datasets.dvs.formats import (
    aedat,
    aedat4,
    event_stream,
    hdf5,
    mat,
    numpy_files,
    prophesee,
    ros_bags,
    text,
)
from slowfast.datasets.dvs.formats.base import (
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    StreamInfo,
    event_suffixes,
    open_events,
    read_blocks,
)
from slowfast.datasets.dvs.formats.blocks import read_stream

__all__ = [
    "EVENT_READER_REGISTRY",
    "EventBlock",
    "EventReader",
    "StreamInfo",
    "aedat",
    "aedat4",
    "event_stream",
    "event_suffixes",
    "hdf5",
    "mat",
    "numpy_files",
    "open_events",
    "prophesee",
    "read_blocks",
    "read_stream",
    "ros_bags",
    "text",
]
