"""Bags of ROS 1 and 2 with events, written with rosbags."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import open_events
from slowfast.errors import UserError
from tests.raw_recordings import Event, evt3_words, read, rows, some_events

EVENTS = some_events(120)
START = 1_700_000_000  # seconds
EVENT = "uint16 x\nuint16 y\ntime ts\nbool polarity\n"
ARRAY = "std_msgs/Header header\nuint32 height\nuint32 width\n{package}/Event[] events\n"
PACKET = """std_msgs/Header header
uint32 height
uint32 width
uint64 seq
uint64 time_base
string encoding
bool is_bigendian
uint8[] events
"""


def typestore(ros: int):  # type: ignore[no-untyped-def]
    store = get_typestore(Stores.ROS1_NOETIC if ros == 1 else Stores.ROS2_HUMBLE)
    time = "time" if ros == 1 else "builtin_interfaces/Time"
    for package in ("dvs_msgs", "prophesee_event_msgs"):
        store.register(get_types_from_msg(EVENT.replace("time", time), f"{package}/msg/Event"))
        store.register(get_types_from_msg(ARRAY.format(package=package), f"{package}/msg/EventArray"))
    store.register(get_types_from_msg(PACKET, "event_camera_msgs/msg/EventPacket"))
    return store


class Bag:
    """Bag of messages of events, written for one version of ROS."""

    def __init__(self, ros: int, path: Path) -> None:
        self.ros, self.store = ros, typestore(ros)
        plugin = StoragePlugin.MCAP if path.suffix == ".mcap" else StoragePlugin.SQLITE3
        self.writer = Writer1(path) if ros == 1 else Writer2(path.with_suffix(""), version=9, storage_plugin=plugin)
        self.path = path if ros == 1 else path.with_suffix("") / path.name
        self.time = 0

    def write(self, messages: dict[str, list[tuple[str, object]]]) -> Path:
        """Write messages, a list per topic, and return the file."""
        with self.writer as writer:
            for topic, content in messages.items():
                connection = writer.add_connection(topic, content[0][0], typestore=self.store)
                for kind, message in content:
                    self.time += 1
                    serialize = self.store.serialize_ros1 if self.ros == 1 else self.store.serialize_cdr
                    writer.write(connection, self.time, serialize(message, kind))
        return self.path

    def header(self, frame: str = "camera"):  # type: ignore[no-untyped-def]
        types = self.store.types
        stamp = types["builtin_interfaces/msg/Time"](sec=5, nanosec=6)
        extra = {"seq": 1} if self.ros == 1 else {}
        return types["std_msgs/msg/Header"](**extra, stamp=stamp, frame_id=frame)

    def array(self, events: list[Event], package: str = "dvs_msgs", frame: str = "c") -> tuple[str, object]:
        types = self.store.types
        time, event = types["builtin_interfaces/msg/Time"], types[f"{package}/msg/Event"]
        content = [
            event(x=x, y=y, ts=time(sec=START + t // 10**6, nanosec=t % 10**6 * 1000), polarity=bool(p))
            for x, y, t, p in events
        ]
        kind = f"{package}/msg/EventArray"
        return kind, types[kind](header=self.header(frame), height=200, width=300, events=content)

    def packet(self, encoding: str, base: int, data: np.ndarray) -> tuple[str, object]:
        kind = "event_camera_msgs/msg/EventPacket"
        message = self.store.types[kind](
            header=self.header(),
            height=200,
            width=300,
            seq=7,
            time_base=base,
            encoding=encoding,
            is_bigendian=False,
            events=data.view(np.uint8),
        )
        return kind, message


FILES = [(1, "a.bag"), (2, "a.db3"), (2, "a.mcap")]


def shifted(events: object) -> list[Event]:
    return [(x, y, t - START * 10**6, p) for x, y, t, p in rows(events)]


@pytest.mark.parametrize(("ros", "name"), FILES)
def test_event_arrays(tmp_path: Path, ros: int, name: str) -> None:
    bag = Bag(ros, tmp_path / name)
    # Names of frames of any length shift what follows.
    arrays = [
        bag.array(EVENTS[at : at + 50], ("dvs_msgs", "prophesee_event_msgs")[0], "c" * at) for at in range(0, 120, 50)
    ]
    path = bag.write(
        {
            "/dvs/left/events": [*arrays, bag.array([])],
            "/dvs/right": [bag.array(EVENTS[:1], "prophesee_event_msgs")],
            "/pose": [("std_msgs/msg/Header", bag.header())],
        }
    )
    left, right = read(path)
    assert (left.name, right.name, left.sensor) == ("dvs_left_events", "dvs_right", (200, 300))
    assert shifted(left.events) == EVENTS and shifted(right.events) == EVENTS[:1]


@pytest.mark.parametrize(("ros", "name"), FILES)
def test_event_packets(tmp_path: Path, ros: int, name: str) -> None:
    bag = Bag(ros, tmp_path / name)
    words = np.array(evt3_words(EVENTS), "<u2")
    mono = np.array([p << 63 | y << 48 | x << 32 | t * 1000 for x, y, t, p in EVENTS], "<u8")
    path = bag.write(
        {
            # The state of the decoder continues in the next message.
            "/evt3": [bag.packet("evt3", 0, part) for part in (words[:101], words[101:])],
            "/mono": [bag.packet("mono", START * 10**9, mono)],
        }
    )
    evt3, decoded = read(path)
    assert rows(evt3.events) == EVENTS and shifted(decoded.events) == EVENTS


def test_others(tmp_path: Path) -> None:
    bag = Bag(1, tmp_path / "a.bag")
    bag.write({"/pose": [("std_msgs/msg/Header", bag.header())]})
    with pytest.raises(DecodeError, match="the bag contains no events, only std_msgs/msg/Header"):
        open_events(bag.path)
    bag = Bag(1, tmp_path / "b.bag")
    bag.write({"/e": [bag.packet("libcaer_cmp", 0, np.zeros(8, np.uint8))]})
    with pytest.raises(DecodeError, match="in the encoding 'libcaer_cmp' are not supported. Supported: evt3, mono"):
        read(bag.path)
    (tmp_path / "c.bag").write_bytes(bag.path.read_bytes()[:2000])
    with pytest.raises(DecodeError, match="not a readable .bag file"):
        read(tmp_path / "c.bag")


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rosbags.rosbag1", None)
    (tmp_path / "a.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(UserError, match=r"slowfast\[ros\]"):
        open_events(tmp_path / "a.bag")
