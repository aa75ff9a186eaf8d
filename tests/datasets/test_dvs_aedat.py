"""AEDAT files written by iniVation's dv-processing and by the test encoder, including truncated and damaged ones."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
import zstandard

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.formats import open_events, read_stream
from slowfast.errors import UserError
from tests.raw_recordings import EVENTS, aedat, aedat2, aedat4, davis, events_of, read, rows, some_events

# 60 events each, written with dv-processing 2.0.4's MonoCameraWriter, with a stream of frames and one of triggers.
WRITTEN_BY_DV = sorted((Path(__file__).parents[1] / "recordings").glob("*.aedat4"))
DV_EVENTS = [(k * 37 % 346, k * 23 % 260, 1_700_000_000_000_000 + k * k * 10, int(k % 3 == 0)) for k in range(60)]
LONG = some_events(300, longest=2_000_000, width=128, height=128)
PACKERS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: lz4.frame.compress,
    2: lambda data: lz4.frame.compress(data, compression_level=9, store_size=False),
    3: zstandard.ZstdCompressor(write_content_size=False).compress,
    4: zstandard.ZstdCompressor(level=19).compress,
}


@pytest.mark.parametrize("file", WRITTEN_BY_DV, ids=lambda file: file.stem)
def test_files_of_dv_processing(file: Path) -> None:
    (stream,) = read(file)
    assert rows(stream.events) == DV_EVENTS
    assert (stream.sensor, stream.damage, stream.name) == ((260, 346), None, "")


def test_all_compressions_are_covered() -> None:
    assert [file.stem for file in WRITTEN_BY_DV] == ["dv_lz4", "dv_lz4_high", "dv_none", "dv_zstd", "dv_zstd_high"]


@pytest.mark.parametrize("compression", PACKERS)
def test_event_streams_among_others(tmp_path: Path, compression: int) -> None:
    one, other = some_events(), some_events(70, seed=1)
    data = aedat4([one, other], compression, PACKERS[compression], types=["FRME", "POSE", "XXXX"])
    (tmp_path / "a.aedat").write_bytes(data)
    first, second = read(tmp_path / "a.aedat")
    assert (rows(first.events), rows(second.events)) == (one, other)
    assert (first.name, second.name, first.sensor, first.damage) == ("stream0", "stream1", (200, 300), None)


def test_unknown_sensor_size_and_no_events(tmp_path: Path) -> None:
    (tmp_path / "a.aedat4").write_bytes(aedat4([[]], sizes=False))
    (stream,) = read(tmp_path / "a.aedat4")
    assert (len(stream.events.t), stream.sensor, stream.damage) == (0, None, None)


@pytest.mark.parametrize("compression", PACKERS)
def test_truncation_is_reported_wherever_it_is(tmp_path: Path, compression: int) -> None:
    events, file = some_events(60), tmp_path / "a.aedat4"
    data = aedat4([events], compression, PACKERS[compression])
    whole = len(data) - len(PACKERS[compression](b"the table of packets"))
    for end in range(0, whole, 7):
        file.write_bytes(data[:end])
        try:
            (stream,) = read(file)
        except DecodeError:
            assert end < 500, "only a truncated header leaves nothing"
            continue
        assert stream.damage is not None and "truncated" in stream.damage
        found = rows(stream.events)
        assert found == events[: len(found)] and len(found) % 20 == 0
    file.write_bytes(data[:whole])  # all packets, no table
    assert rows(read(file)[0].events) == events


def test_unclosed_recording(tmp_path: Path) -> None:
    (tmp_path / "a.aedat4").write_bytes(aedat4([some_events()], closed=False))
    (stream,) = read(tmp_path / "a.aedat4")
    assert rows(stream.events) == some_events()
    assert stream.damage == "the recording was not closed properly; the last events may be missing"


def test_undecompressable_packets_are_counted(tmp_path: Path) -> None:
    packs = iter([lz4.frame.compress, lambda data: lz4.frame.compress(data)[:-9], lz4.frame.compress])
    data = aedat4([some_events()], 1, lambda data: next(packs, lz4.frame.compress)(data))
    (tmp_path / "a.aedat4").write_bytes(data)
    (stream,) = read(tmp_path / "a.aedat4")
    assert rows(stream.events) == some_events()[:20] + some_events()[40:]
    assert stream.damage is not None and "1 event packets were lost: a packet cannot be decompressed" in stream.damage


@pytest.mark.parametrize(("compression", "package"), [(2, "lz4.frame"), (3, "zstandard")])
def test_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: int, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.aedat4").write_bytes(aedat4([some_events()], compression, PACKERS[compression]))
    with pytest.raises(UserError, match=rf"needs {package.split('.')[0]}, .*slowfast\[events\]"):
        read(tmp_path / "a.aedat4")


def test_aedat_3(tmp_path: Path) -> None:
    events = some_events()
    (tmp_path / "a.aedat").write_bytes(aedat(events, overflow=1))
    (stream,) = read(tmp_path / "a.aedat")
    assert rows(stream.events) == [(x, y, t + 2**31, p) for x, y, t, p in events]
    assert stream.damage is None


def test_truncated_aedat_3(tmp_path: Path) -> None:
    data, events = aedat(some_events()), some_events()
    for cut, count in ((9, 50), (60, 40), (len(data) - 60, 0)):
        (tmp_path / "a.aedat").write_bytes(data[:-cut])
        (stream,) = read(tmp_path / "a.aedat")
        assert rows(stream.events) == events[:count]
        assert stream.damage is not None and "truncated at byte" in stream.damage


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!AER-DAT5.0\r\nrest", r"not an AEDAT 2.0 file or an AEDAT 3.1 .* \(starts with '#!AER-DAT5.0'\)"),
        (b"#!AER-DAT3.1\r\nrest", "the header is incomplete"),
        (b"#!AER-DAT4.0\r\nrest", "the header is truncated or damaged"),
        (aedat4([some_events()]).replace(b"<dv", b"<<<"), "description of the streams is damaged"),
        (aedat4([], types=["FRME"]), "contains no event stream, only FRME"),
        (aedat4([some_events()], compression=9), "unknown compression type 9"),
    ],
)
def test_damaged_files(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "a.aedat").write_bytes(data)
    with pytest.raises(DecodeError, match=message):
        read(tmp_path / "a.aedat")


@pytest.mark.parametrize("kind", ["lz4", "zstd"])
def test_oversized_packet_is_lost(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slowfast.datasets.dvs.formats.aedat4.MAX_UNPACKED", 2**20)
    pack = lz4.frame.compress if kind == "lz4" else zstandard.ZstdCompressor().compress
    packs = iter([pack, lambda body: pack(bytes(2**24)), pack, pack])
    events = some_events(60)
    file = tmp_path / "a.aedat4"
    file.write_bytes(aedat4([events], 1 if kind == "lz4" else 3, lambda body: next(packs)(body)))
    (stream,) = read(file)
    assert rows(stream.events) == events[:20] + events[40:]
    assert "1 event packets were lost" in str(stream.damage) and "more than 1 MiB" in str(stream.damage)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("header", ["", "# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"])
def test_dvs128(tmp_path: Path, header: str, version: int) -> None:
    words = [(x << 8 | y << 1 | p, t) for x, y, t, p in LONG]
    words.insert(7, (1 << 15, LONG[7][2]))  # a signal
    (tmp_path / "a.aedat").write_bytes(aedat2(words, header, version))
    assert events_of(tmp_path / "a.aedat") == LONG
    assert open_events(tmp_path / "a.aedat").streams[0].sensor == (128, 128)


@pytest.mark.parametrize(
    ("name", "size"), [("Davis346blue", (346, 260)), ("DAVIS240C", (240, 180)), ("Davis640", (640, 480))]
)
def test_davis_counts_from_the_lower_right_corner(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    words = davis(EVENTS, *size)
    for other in (1 << 31 | 5 << 12, 1 << 10 | 3 << 12):  # a pixel of a frame, and a signal
        words.insert(9, (other, words[9][1]))
    header = f"# HardwareInterface: DAVIS FX3\r\n# AEChip: eu.seebetter.ini.chips.davis.{name}\r\n"
    (tmp_path / "a.aedat").write_bytes(aedat2(words, header))
    assert events_of(tmp_path / "a.aedat") == EVENTS
    assert open_events(tmp_path / "a.aedat").streams[0].sensor == (size[1], size[0])


def test_camera_without_a_name(tmp_path: Path) -> None:
    events = [(300, 200, 5, 1), *((x, y, t + 5, p) for x, y, t, p in EVENTS)]
    (tmp_path / "a.aedat").write_bytes(aedat2(davis(events, 346, 260)))
    reader = open_events(tmp_path / "a.aedat")
    assert rows(read_stream(reader)) == events
    assert reader.notes == ["read as DAVIS of 260 x 346 pixels; the header names no camera"]


def test_time_overflows(tmp_path: Path) -> None:
    start = 2**32 - 50_000
    words = [(x << 8 | y << 1 | p, (t + start) % 2**32) for x, y, t, p in EVENTS]
    (tmp_path / "a.aedat").write_bytes(aedat2(words))
    assert [e[2] - start for e in rows(read(tmp_path / "a.aedat")[0].events)] == [e[2] for e in EVENTS]
