"""Bags of ROS 1 (.bag) and ROS 2 (.mcap, .db3) with messages of event cameras.

* ``EventArray`` of dvs_msgs and prophesee_event_msgs: an element per event, with its time.
* ``EventPacket`` of event_camera_msgs (formerly ``EventArray`` of event_array_msgs), in the encodings evt3 and mono.

A topic is a stream. The messages are parsed here, because the packages that define them are rarely installed.

Notation: n events of a message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.base import (
    BLOCK_EVENTS,
    EVENT_READER_REGISTRY,
    EventBlock,
    EventReader,
    Sensor,
    StreamInfo,
    guarded,
)
from slowfast.datasets.dvs.formats.evt import Evt3Decoder
from slowfast.utils.imports import import_extra

ARRAYS = ("dvs_msgs", "prophesee_event_msgs")
PACKETS = ("event_camera_msgs", "event_array_msgs")
ROS_1 = ".bag"
# Events of an array: ROS 1 packs them; ROS 2 aligns each number to its size, so that the first event is shorter.
_EVENT_1 = np.dtype([("x", "<u2"), ("y", "<u2"), ("sec", "<u4"), ("nsec", "<u4"), ("p", "u1")])
_FIRST_2 = np.dtype([("x", "<u2"), ("y", "<u2"), ("sec", "<i4"), ("nsec", "<u4"), ("p", "u1"), ("pad", "u1")])
_EVENT_2 = np.dtype(
    [("x", "<u2"), ("y", "<u2"), ("pad", "<u2"), ("sec", "<i4"), ("nsec", "<u4"), ("p", "u1"), ("end", "u1")]
)
_SQLITE = b"SQLite format 3\0"
# Words of the encoding mono: nanoseconds since the base of the message, x, y, polarity.
_MONO_TIME, _MONO_X, _MONO_Y = (1 << 32) - 1, 32, 48


@EVENT_READER_REGISTRY.register(name="ros-bag")
class RosBagReader(EventReader):
    """Reader of bags."""

    suffixes, label = (ROS_1, ".mcap", ".db3"), "a bag of ROS"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        _check_pages(path)
        self._open = _opener(path)
        with self._open() as bag:
            topics = sorted({c.topic for c in bag.connections if _is_event_type(c.msgtype)})
            if not topics:
                types = sorted({c.msgtype for c in bag.connections})
                raise DecodeError(f"the bag contains no events, only {', '.join(types[:8]) or 'no messages'}")
            self.topics = topics
            self._sensors = [self._sensor(bag, topic) for topic in topics]

    @property
    def streams(self) -> Sequence[StreamInfo]:
        """Topics in alphabetical order."""
        several = len(self.topics) > 1
        names = [topic.strip("/").replace("/", "_") if several else "" for topic in self.topics]
        return [StreamInfo(name, sensor) for name, sensor in zip(names, self._sensors, strict=True)]

    def blocks(self, stream: int = 0) -> Iterator[EventBlock]:
        """Parse the messages of a topic; small ones are joined."""
        waiting: list[EventBlock] = []
        decoder = Evt3Decoder()
        with self._open() as bag:
            for kind, message in self._messages(bag, self.topics[stream]):
                parsed = message.events() if _package(kind) in ARRAYS else message.packet(decoder)
                for block in _cut(parsed):
                    waiting.append(block)
                    if sum(len(part.t) for part in waiting) >= BLOCK_EVENTS:
                        yield _join(waiting)
                        waiting = []
        if waiting:
            yield _join(waiting)

    def _messages(self, bag: Any, topic: str) -> Iterator[tuple[str, _Message]]:
        """Yield the type and the content of the messages of a topic, up to the first damaged one."""
        connections = [c for c in bag.connections if c.topic == topic and _is_event_type(c.msgtype)]
        messages = bag.messages(connections=connections)
        while True:
            try:
                with guarded(self.path):
                    found = next(messages, None)
            except DecodeError as error:
                self.report(f"{error}; the events before were read")
                return
            if found is None:
                return
            connection, _, data = found
            yield connection.msgtype, _Message(bytes(data), self.path.suffix.lower() == ROS_1)

    def _sensor(self, bag: Any, topic: str) -> Sensor | None:
        """Return the height and width stated by the first message of a topic."""
        for _, message in self._messages(bag, topic):
            return message.sensor if min(message.sensor) > 0 else None
        return None


def _check_pages(path: Path) -> None:
    """Raise DecodeError if an SQLite database is shorter than its header states: SQLite reads the rest as zeros."""
    with path.open("rb") as file:
        head = file.read(32)
    if len(head) < 32 or not head.startswith(_SQLITE):
        return
    page = int.from_bytes(head[16:18], "big")
    size, found = (2**16 if page == 1 else page) * int.from_bytes(head[28:32], "big"), path.stat().st_size
    if found < size:
        raise DecodeError(f"truncated: the file has {found} of its {size} bytes. Recover it with sqlite3's .recover")


def _opener(path: Path) -> Callable[[], Any]:
    """Return a function that opens a bag.

    Raises:
        UserError: If the package for bags is not installed.
    """
    module = "rosbags.rosbag1" if path.suffix.lower() == ROS_1 else "rosbags.rosbag2"
    reader: Callable[[Path], Any] = import_extra(module, "ros", "a ROS bag").Reader
    return lambda: reader(path)


def _package(kind: str) -> str:
    return kind.partition("/")[0]


def _is_event_type(kind: str) -> bool:
    name = kind.rpartition("/")[2]
    return (_package(kind) in ARRAYS and name == "EventArray") or (
        _package(kind) in PACKETS and name in ("EventArray", "EventPacket")
    )


class _Message:
    """Serialized message of events, parsed up to the size of the sensor.

    Args:
        data: Content.
        packed: Whether it is a ROS 1 message, without alignment.

    Raises:
        DecodeError: If it has another byte order.
    """

    def __init__(self, data: bytes, packed: bool) -> None:
        self.data, self.packed = data, packed
        self._start = 0 if packed else 4  # alignment is relative to the end of ROS 2's encapsulation header
        self._at = self._start
        if packed:
            self._number("<I")  # sequence number of the message
        elif len(data) < 4 or data[1] != 1:
            raise DecodeError("messages of ROS 2 in another encoding than little-endian CDR")
        self._number("<I"), self._number("<I")  # time of the message
        self._text()  # frame
        height, width = self._number("<I"), self._number("<I")
        self.sensor: Sensor = (height, width)

    def events(self) -> EventBlock:
        """Return the events of an EventArray."""
        count = self._number("<I")
        if self.packed:
            events = np.frombuffer(self.data, _EVENT_1, count, self._at)
            return EventBlock(_times(events), events["x"], events["y"], (events["p"] != 0).view(np.uint8))
        if not count:
            return EventBlock.empty()
        padded = self.data + b"\0"  # the last event has no padding
        first = np.frombuffer(padded, _FIRST_2, 1, self._at)
        rest = np.frombuffer(padded, _EVENT_2, count - 1, self._at + _FIRST_2.itemsize) if count > 1 else first[:0]
        parts = [(_times(part), part["x"], part["y"], (part["p"] != 0).view(np.uint8)) for part in (first, rest)]
        return EventBlock(*(np.concatenate(pair) for pair in zip(*parts, strict=True)))

    def packet(self, decode: Evt3Decoder) -> EventBlock:
        """Return the events of an EventPacket.

        Args:
            decode: Decoder with the state after the previous packet.

        Raises:
            DecodeError: If its encoding is not supported.
        """
        self._number("<Q")  # sequence number of the message
        time_base = self._number("<Q")
        encoding = self._text()
        if self._number("<B"):
            raise DecodeError("event packets in big-endian byte order are not supported")
        size = self._number("<I")
        data = self.data[self._at : self._at + size]
        if encoding == "evt3":
            return decode(np.frombuffer(data, "<u2", len(data) // 2))
        if encoding != "mono":
            raise DecodeError(f"event packets in the encoding {encoding!r} are not supported. Supported: evt3, mono")
        words = np.frombuffer(data, "<u8", len(data) // 8)
        nanoseconds = (words & _MONO_TIME).astype(np.int64) + time_base
        x, y = words >> np.uint64(_MONO_X) & 0xFFFF, words >> np.uint64(_MONO_Y) & 0x7FFF
        p = words >> np.uint64(63)
        return EventBlock(
            np.rint(nanoseconds / 1000).astype(np.int64), x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8)
        )

    def _number(self, kind: str) -> int:
        size = struct.calcsize(kind)
        if not self.packed:
            self._at += -(self._at - self._start) % size
        value: int = struct.unpack_from(kind, self.data, self._at)[0]
        self._at += size
        return value

    def _text(self) -> str:
        length = self._number("<I")
        text = self.data[self._at : self._at + length].rstrip(b"\0").decode("utf-8", "replace")
        self._at += length
        return text


def _times(events: np.ndarray) -> np.ndarray:
    """Return the times of events in microseconds, int64 (n,)."""
    seconds = events["sec"].astype(np.int64) * 1_000_000
    result: np.ndarray = seconds + np.rint(events["nsec"] / 1000).astype(np.int64)
    return result


def _cut(events: EventBlock) -> Iterator[EventBlock]:
    for first in range(0, len(events.t), BLOCK_EVENTS):
        yield EventBlock(*(column[first : first + BLOCK_EVENTS] for column in events))


def _join(parts: Sequence[EventBlock]) -> EventBlock:
    return parts[0] if len(parts) == 1 else EventBlock(*map(np.concatenate, zip(*parts, strict=True)))
