"""Sample tables of MP4 files equal a scan of the packets, or are not used."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slowfast.datasets.decode import open_video, packets
from slowfast.datasets.decode.pyav import PyAVReader
from tests.decoded_tables import compare_with_scan
from tests.video_files import plain_frames, write_sound, write_video

GROUPS = {"x264-params": "keyint=12:scenecut=0:bframes=2"}


@pytest.mark.slow
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    frames=st.integers(1, 30),
    codec=st.sampled_from(["libx264", "libx264", "libx265"]),
    group=st.integers(1, 30),
    b_frames=st.integers(0, 3),
    is_open=st.booleans(),
    gaps=st.none() | st.lists(st.integers(1, 9), min_size=40, max_size=40),
    start=st.sampled_from([0, 0, 7]),
    suffix=st.sampled_from([".mp4", ".mov"]),
    flags=st.sampled_from(["", "+faststart", "+negative_cts_offsets", "+frag_keyframe"]),
)
def test_clips_of_every_kind(
    frames: int,
    codec: str,
    group: int,
    b_frames: int,
    is_open: bool,
    gaps: list[int] | None,
    start: int,
    suffix: str,
    flags: str,
    tmp_path: Path,
) -> None:
    own = f"keyint={group}:min-keyint=1:scenecut=0:bframes={b_frames}:open-gop={int(is_open)}"
    kind = {"libx264": {"x264-params": own}, "libx265": {"x265-params": f"log-level=none:pools=1:{own}"}}[codec]
    times = [start + time for time in (np.cumsum(gaps).tolist() if gaps else range(frames))]
    source = write_video(tmp_path / "source.mkv", frames, codec, pts=times, time_base=Fraction(1, 25), options=kind)
    path = remux(source, tmp_path / f"clip{suffix}", {"movflags": flags} if flags else {})
    used = compare_with_scan(path, [0, frames - 1, frames // 2])
    if codec == "libx264" and flags in ("", "+faststart") and not is_open and frames > 1:
        assert used


def remux(source: Path, target: Path, options: dict[str, str], *others: Path) -> Path:
    with av.open(str(target), "w", options=options) as out:
        inputs = [av.open(str(path)) for path in (source, *others)]
        pairs = [(one, out.add_stream_from_template(one.streams[0])) for one in inputs]
        for one, stream in pairs:
            for packet in one.demux(one.streams[0]):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
            one.close()
    return target


def test_a_file_with_sound(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", 40, options=GROUPS)
    sound = write_sound(tmp_path / "sound.mp4")
    assert compare_with_scan(remux(source, tmp_path / "both.mp4", {}, sound), [0, 20, 39])


def patch(data: bytearray, kind: bytes, offset: int, form: str, *values: int) -> None:
    """Overwrite fields of a box, `offset` bytes after its type."""
    struct.pack_into(form, data, data.index(kind) + 4 + offset, *values)


def shorten_edit(data: bytearray) -> None:
    patch(data, b"elst", 8, ">I", 700)


def late_edit(data: bytearray) -> None:
    at = data.index(b"elst") + 4
    time = struct.unpack_from(">i", data, at + 12)[0]
    patch(data, b"elst", 12, ">i", time + 6000)


def fast_edit(data: bytearray) -> None:
    patch(data, b"elst", 16, ">hh", 2, 0)


def empty_edit(data: bytearray) -> None:
    patch(data, b"elst", 12, ">i", -1)


def miscounted_offsets(data: bytearray) -> None:
    at = data.index(b"ctts") + 8
    patch(data, b"ctts", 4, ">I", struct.unpack_from(">I", data, at)[0] - 1)


def wrong_chunk(data: bytearray) -> None:
    at = data.index(b"stco") + 12
    patch(data, b"stco", 8, ">I", struct.unpack_from(">I", data, at)[0] + 3)


def chunk_beyond_the_end(data: bytearray) -> None:
    patch(data, b"stco", 8, ">I", 10**8)


def false_key(data: bytearray) -> None:
    patch(data, b"stss", 12, ">I", 7)


def no_keys(data: bytearray) -> None:
    data[data.index(b"stss") : data.index(b"stss") + 4] = b"free"


def huge_size(data: bytearray) -> None:
    patch(data, b"stsz", 12, ">I", 10**6)


def no_size(data: bytearray) -> None:
    patch(data, b"stsz", 16, ">I", 0)


def huge_count(data: bytearray) -> None:
    patch(data, b"stts", 8, ">I", 2**32 - 1)


def cut(data: bytearray) -> None:
    del data[len(data) * 2 // 3 :]


CHANGES: list[Callable[[bytearray], None]] = [
    *(shorten_edit, late_edit, fast_edit, empty_edit, miscounted_offsets, wrong_chunk, chunk_beyond_the_end),
    *(false_key, no_keys, huge_size, no_size, huge_count, cut),
]


@pytest.fixture(scope="module")
def regular(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("regular")
    return remux(write_video(folder / "a.mkv", 40, options=GROUPS), folder / "a.mp4", {"movflags": "+faststart"})


@pytest.mark.parametrize("change", CHANGES)
def test_damaged_and_unusual_tables(change: Callable[[bytearray], None], regular: Path, tmp_path: Path) -> None:
    data = bytearray(regular.read_bytes())
    change(data)
    (tmp_path / "changed.mp4").write_bytes(data)
    assert not compare_with_scan(tmp_path / "changed.mp4")


def test_parameter_sets_in_the_stream(tmp_path: Path) -> None:
    """The second half has a larger quantizer in its parameter sets, as in a concatenated file."""
    parts = [
        write_video(tmp_path / f"{number}.mkv", 20, options={"x264-params": f"keyint=10:{more}"})
        for number, more in enumerate(["bframes=0:cabac=1", "bframes=0:cabac=0:ref=1"])
    ]
    path = tmp_path / "joined.mp4"
    with av.open(str(path), "w") as out:
        stream = None
        for number, part in enumerate(parts):
            with av.open(str(part)) as one:
                stream = stream or out.add_stream_from_template(one.streams[0])
                sets = packets.NalFormat("h264", one.streams[0].codec_context.extradata)
                head = sets.join(sets.global_sets(one.streams[0].codec_context.extradata))
                for packet in one.demux(one.streams[0]):
                    if packet.size:
                        copy = av.Packet(head * packet.is_keyframe + bytes(packet))
                        copy.pts, copy.dts = packet.pts + 800 * number, packet.dts + 800 * number
                        copy.time_base, copy.is_keyframe, copy.stream = packet.time_base, packet.is_keyframe, stream
                        out.mux(copy)
    assert not compare_with_scan(path, [5, 25])


def test_opening_reads_few_packets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "long.mp4", 700, size=(32, 48), options={"x264-params": "keyint=50:bframes=2"})
    read: list[Any] = []
    demux = packets.PacketSource._demux
    monkeypatch.setattr(
        packets.PacketSource, "_demux", lambda *a: (read.append(packet) or packet for packet in demux(*a))
    )
    with open_video(path) as video:
        assert isinstance(video, PyAVReader) and not video._source.is_scanned
        assert video.num_frames == 700 and len(read) < 20
        frame = video.read([321]).frames[0]
        assert len(read) < 100
    np.testing.assert_array_equal(frame, plain_frames(path)[321])
