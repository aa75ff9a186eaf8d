"""Prophesee's formats against the test encoders."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats.evt import Evt2Decoder, Evt3Decoder, Evt21Decoder
from tests import raw_recordings as raw
from tests.raw_recordings import Event, events_of, rows, some_events

LITTLE_21 = b"% format EVT21;height=240;width=320;endianness=little\n"
LEGACY_21 = b"% evt 2.1\n% format EVT21;height=240;width=320;endianness=legacy\n"
LONG = some_events(300, longest=2_000_000, width=128, height=128)


def crowded(n: int, seed: int, longest: int) -> list[Event]:
    """Return distinct events on few pixels and at few times, in the order of a mask."""
    events = set(some_events(n, seed, longest, width=70, height=3))
    return sorted(events, key=lambda event: (event[2], event[1], event[3], event[0]))


@pytest.mark.parametrize(
    ("name", "data", "sensor"),
    [
        ("a.dat", raw.dat(some_events()), (240, 304)),
        ("a.dat", raw.dat(some_events(), version=1), (240, 304)),
        ("a.raw", raw.evt2(some_events()), None),
        ("a.raw", raw.evt21(some_events(), LITTLE_21), (240, 320)),
        ("a.raw", raw.evt21(some_events(), LEGACY_21), (240, 320)),
        ("a.raw", raw.evt21(some_events(), b"% evt 2.1\n% geometry 1280x720\n"), (720, 1280)),
        ("a.raw", raw.evt3(some_events()), (720, 1280)),
    ],
)
def test_events_and_sensor(tmp_path: Path, name: str, data: bytes, sensor: tuple[int, int] | None) -> None:
    (tmp_path / name).write_bytes(data)
    (stream,) = raw.read(tmp_path / name)
    assert (rows(stream.events), stream.sensor, stream.damage) == (some_events(), sensor, None)


def test_word_order_is_detected(tmp_path: Path) -> None:
    for header in (LITTLE_21, LEGACY_21):
        data = raw.evt21(some_events(), header)
        for told in (b";endianness=little", b";endianness=legacy"):
            data = data.replace(told, b"")
        (tmp_path / "a.raw").write_bytes(data)
        assert rows(raw.read(tmp_path / "a.raw")[0].events) == some_events()


def test_evt21_of_evutils() -> None:
    """Read a file in legacy word order that evutils 0.3.18 wrote, with several events per word."""
    (stream,) = raw.read(Path(__file__).parents[1] / "recordings" / "evutils_evt21.raw")
    written = [(k * 37 % 1240 + b, k * 23 % 720, k * k * 10, int(k % 3 == 0)) for k in range(60) for b in (0, 1, 5)]
    assert (rows(stream.events), stream.sensor, stream.damage) == (written, (720, 1280), None)


@settings(max_examples=40)
@given(n=st.integers(0, 300), seed=st.integers(0, 99))
def test_evt21_masks(n: int, seed: int) -> None:
    events = crowded(n, seed, longest=20)
    words = raw.evt21_words(events)
    assert rows(Evt21Decoder()(np.array(words, np.uint64))) == events
    assert n < 250 or len(words) < len(events) - 20, "hardly a mask had several events"


@settings(max_examples=40)
@given(n=st.integers(0, 40), seed=st.integers(0, 99))
def test_counter_overflow(n: int, seed: int) -> None:
    for bits, decode, words in (
        (24, Evt3Decoder, lambda events: np.array(raw.evt3_words(events), np.uint16)),
        (34, Evt2Decoder, lambda events: np.array(raw.evt2_words(events), np.uint32)),
        (34, Evt21Decoder, lambda events: np.array(raw.evt21_words(events), np.uint64)),
    ):
        events = some_events(n, seed, longest=5 << bits - 1)
        gaps = np.diff([e[2] for e in events], prepend=0)
        if not n or gaps.max() >= 1 << bits - 1:
            continue  # a counter overflow can only be detected if events arrive within half of its period
        turns = events[0][2] >> bits
        assert rows(decode()(words(events))) == [(x, y, t - (turns << bits), p) for x, y, t, p in events]


def test_evt3_masks() -> None:
    words = [0x8001, 0x6005, 0x0007, 0x3000 | 1 << 11 | 100, 0x4000 | 0b100000000001, 0x5000 | 0b10, 0x4000 | 0b1]
    words += [0x2000 | 9]
    want = [(100, 7, 4101, 1), (111, 7, 4101, 1), (113, 7, 4101, 1), (120, 7, 4101, 1), (9, 7, 4101, 0)]
    assert rows(Evt3Decoder()(np.array(words, np.uint16))) == want


def test_evt3_high_time_resets_low_time() -> None:
    words = [0x8001, 0x6005, 0x0007, 0x2001, 0x8001, 0x2002, 0x8002, 0x2003]
    assert [e[2] for e in rows(Evt3Decoder()(np.array(words, np.uint16)))] == [4101, 4101, 8192]


def test_events_before_the_first_time_are_dropped() -> None:
    assert rows(Evt3Decoder()(np.array([0x0007, 0x2001], np.uint16))) == []
    assert rows(Evt2Decoder()(np.array([1 << 28 | 5], np.uint32))) == []
    assert rows(Evt21Decoder()(np.array([1 << 60 | 5], np.uint64))) == []


@pytest.mark.parametrize("read", [raw.dat, raw.evt2, raw.evt21, raw.evt3])
def test_truncated_file_is_read_and_reported(tmp_path: Path, read: object) -> None:
    data = read(some_events())  # type: ignore[operator]
    file = tmp_path / ("a.dat" if read is raw.dat else "a.raw")
    file.write_bytes(data[:-1])
    (stream,) = raw.read(file)
    assert rows(stream.events) == some_events()[:-1]
    assert stream.damage is not None and "the file ends within an event" in stream.damage


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.raw", b"% evt 4.0\n% end\n....", "unsupported encoding EVT 4.0. Supported: EVT 2.0, EVT 2.1, EVT 3.0"),
        ("a.raw", b"% format HISTO3D;height=320;width=320\n....", "unsupported encoding HISTO3D"),
        ("a.raw", b"no header", "unsupported encoding EVT unknown"),
        ("a.raw", b"% evt 2.0", "the header is incomplete"),
        (
            "a.raw",
            b"% format EVT21;endianness=big\n" + struct.pack("<Q", 8 << 60),
            "unsupported word order big. Supported: little, legacy",
        ),
        ("a.dat", b"% no events\n\x0c\x10", "not a .dat file"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DecodeError, match=message):
        raw.read(tmp_path / name)


def test_evt21_words_in_both_orders() -> None:
    """Use the example of Prophesee's documentation: IMX636 and GenX320 send 0x0102030405060708."""
    for sent, order in ((0x0403020108070605, "legacy"), (0x0807060504030201, "little")):
        assert [hex(word) for word in Evt21Decoder(order).ordered(np.frombuffer(sent.to_bytes(8, "big"), "<u8"))] == [
            "0x102030405060708"
        ]


def test_unsupported_dat_versions_are_errors(tmp_path: Path) -> None:
    (tmp_path / "a.dat").write_bytes(raw.dat(some_events(), version=3))
    with pytest.raises(DecodeError, match="unsupported version 3 of the .dat format"):
        raw.read(tmp_path / "a.dat")


def test_nmnist(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(raw.nmnist(LONG))
    assert events_of(tmp_path / "a.bin") == LONG


def test_nmnist_overflow_events_add_time(tmp_path: Path) -> None:
    before = [(9, 9, t, 1) for t in range(40, 60)]
    data = raw.nmnist([*before, (1, 2, 100, 1), (0, 240, 8191, 0), (3, 4, 50, 0), (0, 240, 60, 0), (5, 6, 7, 1)])
    (tmp_path / "a.bin").write_bytes(data + b"\1\2")
    (stream,) = raw.read(tmp_path / "a.bin")
    assert rows(stream.events) == [*before, (1, 2, 100, 1), (3, 4, 50 + 8192, 0), (5, 6, 7 + 16384, 1)]
    assert stream.damage == "truncated: the file ends within an event, after 2 of 5 bytes"


def test_other_files_of_the_suffix_bin(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(DecodeError, match="not a file of N-MNIST"):
        raw.read(tmp_path / "a.bin")
