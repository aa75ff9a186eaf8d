"""Bags of ROS 1 and 2 with events, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from tests.raw_recordings import Event

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
