"""Bags of ROS 1 and 2 with events, written with rosbags."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import open_events
from slowfast.errors import UserError
from tests.raw_recordings import Event, evt3_words, read, rows, some_events
from tests.ros_bags import START, Bag

EVENTS = some_events(120)
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


def test_truncated_database(tmp_path: Path) -> None:
    """SQLite reads the pages beyond the end as zeros, which would be events."""
    bag = Bag(2, tmp_path / "a.db3")
    path = bag.write({"/e": [bag.array(EVENTS)]})
    data = path.read_bytes()
    path.write_bytes(data[:-1000])
    with pytest.raises(DecodeError, match=f"truncated: the file has {len(data) - 1000} of its {len(data)} bytes"):
        open_events(path)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rosbags.rosbag1", None)
    (tmp_path / "a.bag").write_bytes(b"#ROSBAG V2.0\n")
    with pytest.raises(UserError, match=r"slowfast\[ros\]"):
        open_events(tmp_path / "a.bag")
