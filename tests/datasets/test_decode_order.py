"""Frame order of files without usable timestamps equals the output of FFmpeg's decoder."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from slowfast.datasets.decode import open_video, packets
from slowfast.datasets.decode.pyav import PyAVReader
from tests.coded_pictures import field_coded_h264, join_flv
from tests.video_files import plain_frames, write_video

B_FRAMES = {"x264-params": "keyint=20:scenecut=0:bframes=3:b-pyramid=normal"}
OPEN = {"x264-params": "keyint=20:scenecut=0:bframes=3:open-gop=1:repeat-headers=1"}
REFRESH = {"x264-params": "keyint=20:scenecut=0:bframes=2:intra-refresh=1:repeat-headers=1"}
HEVC = {"x265-params": "log-level=none:keyint=15:bframes=4:open-gop=1:pools=1:frame-threads=1:repeat-headers=1"}
INTERLACED = {"flags": "+ilme+ildct", "x264-params": "keyint=20:bframes=2:tff=1"}


def remux(source: Path, target: Path, *, decoding_times: bool = False) -> Path:
    """Copy the video packets of a file to another container, optionally with decoding times as presentation times."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.size:
                packet.pts = packet.dts if decoding_times else packet.pts
                packet.stream = copy
                out.mux(packet)
    return target


def without_ctts(source: Path, target: Path) -> Path:
    """Copy an MP4 file whose composition offsets are lost."""
    data = source.read_bytes()
    assert b"ctts" in data
    target.write_bytes(data.replace(b"ctts", b"free"))
    return target


def joined(first: Path, second: Path, target: Path) -> Path:
    target.write_bytes(first.read_bytes() + second.read_bytes())
    return target


def make_asf(folder: Path) -> Path:
    return remux(write_video(folder / "a.mp4", options=B_FRAMES), folder / "a.wmv")


def make_mpeg2_asf(folder: Path) -> Path:
    return remux(
        write_video(folder / "a.ts", codec="mpeg2video", options={"g": "12"}, max_b_frames=2), folder / "a.wmv"
    )


def make_avi(folder: Path) -> Path:
    return write_video(folder / "a.avi", options=B_FRAMES)


def make_mkv_of_decoding_times(folder: Path) -> Path:
    return remux(write_video(folder / "a.mp4", options=B_FRAMES), folder / "a.mkv", decoding_times=True)


def make_mp4_without_offsets(folder: Path) -> Path:
    return without_ctts(write_video(folder / "a.mp4", options=OPEN), folder / "b.mp4")


def make_hevc_without_offsets(folder: Path) -> Path:
    return without_ctts(write_video(folder / "a.mp4", codec="libx265", options=HEVC), folder / "b.mp4")


def make_raw_hevc(folder: Path) -> Path:
    return write_video(folder / "a.hevc", codec="libx265", options=HEVC)


def make_raw_mpeg4(folder: Path) -> Path:
    return write_video(folder / "a.m4v", codec="mpeg4", options={"g": "12"}, max_b_frames=2)


def make_raw_mpeg2(folder: Path, suffix: str = ".m2v") -> Path:
    return write_video(folder / f"a{suffix}", codec="mpeg2video", options={"g": "12"}, max_b_frames=2)


def make_mxf(folder: Path) -> Path:
    return write_video(folder / "a.mxf", codec="mpeg2video", options={"g": "12"}, max_b_frames=2)


def make_interlaced(folder: Path) -> Path:
    return write_video(folder / "a.ts", options=INTERLACED)


def make_gif(folder: Path) -> Path:
    return write_video(folder / "a.gif", frames=12, codec="gif", pix_fmt="rgb8", rate=10)


def make_joined_transport_streams(folder: Path) -> Path:
    paths = [write_video(folder / f"{name}.ts", frames=50, options=how) for name, how in (("a", B_FRAMES), ("b", OPEN))]
    return joined(*paths, folder / "joined.ts")


def make_joined_raw(folder: Path) -> Path:
    a = write_video(folder / "a.h264", frames=50, options=B_FRAMES)
    b = write_video(folder / "b.h264", frames=50, options={"profile": "baseline", "g": "10"})
    return joined(a, b, folder / "joined.h264")


def make_joined_matroska(folder: Path) -> Path:
    a = write_video(folder / "a.mkv", frames=50, options=B_FRAMES)
    b = write_video(folder / "b.mkv", frames=50, options=OPEN)
    return joined(a, b, folder / "joined.mkv")


def make_starts_within_open_group(folder: Path) -> Path:
    return _cut(write_video(folder / "a.ts", frames=100, options=OPEN), folder / "cut.ts")


def make_starts_within_refresh(folder: Path) -> Path:
    return _cut(write_video(folder / "a.ts", frames=100, options=REFRESH), folder / "cut.ts")


def make_starts_within_hevc(folder: Path) -> Path:
    return _cut(write_video(folder / "a.ts", frames=100, codec="libx265", options=HEVC), folder / "cut.ts")


def make_starts_within_mpeg2(folder: Path) -> Path:
    source = write_video(folder / "a.ts", frames=60, codec="mpeg2video", options={"g": "12"}, max_b_frames=2)
    return _cut(source, folder / "cut.ts")


def _cut(source: Path, target: Path) -> Path:
    data = source.read_bytes()
    target.write_bytes(data[188 * (len(data) // 188 // 3) :])
    return target


MAKERS: list[Callable[[Path], Path]] = [maker for name, maker in sorted(globals().items()) if name.startswith("make_")]


@pytest.mark.parametrize("held", [packets.MAX_CACHED_BYTES, 0])
@pytest.mark.parametrize("make", MAKERS)
def test_frames_equal_sequential_decoding(
    make: Callable[[Path], Path], held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "MAX_CACHED_BYTES", held)
    path = make(tmp_path)
    plain = plain_frames(path)
    with open_video(path) as video:
        assert video.num_frames == len(plain) > 10
        decoded = video.read(np.arange(len(plain)))
        assert decoded.missing is None
        np.testing.assert_array_equal(decoded.frames[decoded.rows], plain)
        for number in np.random.default_rng(0).permutation(len(plain))[:6].tolist():
            decoded = video.read([number])
            assert decoded.missing is None
            np.testing.assert_array_equal(decoded.frames[0], plain[number], err_msg=f"frame {number} after others")
    for number in np.random.default_rng(1).permutation(len(plain))[:8].tolist():
        with open_video(path) as video:
            decoded = video.read([number])
        assert decoded.missing is None, number
        np.testing.assert_array_equal(decoded.frames[0], plain[number], err_msg=f"frame {number} alone")


def test_reader_without_timestamps_starts_at_a_keyframe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for maker in (make_asf, make_avi, make_raw_mpeg2):
        with open_video(maker(tmp_path)) as video:
            assert isinstance(video, PyAVReader)
            fed: list[av.Packet | None] = []
            decoder, frames = video._decoder, video._decoder._frames
            monkeypatch.setattr(
                decoder, "_frames", lambda packet, f=frames, fed=fed: [fed.append(packet), *f(packet)][1:]
            )
            video.read([55])
            assert 0 < len(fed) < 22  # of 60 packets, one key packet in 20 or less


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4", ".h264"])
def test_separate_field_packets_make_one_frame(suffix: str, tmp_path: Path) -> None:
    stream, luma = field_coded_h264(40)
    raw, path = tmp_path / "fields.raw.h264", tmp_path / f"fields{suffix}"
    raw.write_bytes(stream)
    _mux_fields(raw, path)
    expected = np.round((luma.astype(float) - 16) * 255 / 219).clip(0, 255)
    with open_video(path) as video:
        assert (video.num_frames, video.fps) == (40, pytest.approx(25))
        decoded = video.read(np.arange(40))
        assert decoded.missing is None
        assert np.abs(decoded.frames - expected[..., None]).max() <= 2
    for number in (0, 9, 10, 25, 39):
        with open_video(path) as video:
            decoded = video.read([number])
        assert decoded.missing is None and np.abs(decoded.frames[0] - expected[number][..., None]).max() <= 2


def _mux_fields(raw: Path, target: Path) -> None:
    """Put each field into a separate packet with its timestamp; raw streams are unchanged."""
    if target.suffix == ".h264":
        target.write_bytes(raw.read_bytes())
        return
    with av.open(str(raw)) as container, av.open(str(target), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0])
        copy.time_base = Fraction(1, 50)
        for place, packet in enumerate(p for p in container.demux(video=0) if p.size):
            packet.time_base = Fraction(1, 50)
            packet.pts = packet.dts = place
            packet.duration = 1
            packet.stream = copy
            out.mux(packet)


def test_changed_parameter_sets(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / "a.flv", frames=40, options=B_FRAMES),
        write_video(tmp_path / "b.flv", frames=40, options={"profile": "baseline", "g": "10"}),
    ]
    path = tmp_path / "joined.flv"
    join_flv(*parts, 1600, path)
    plain = np.concatenate([plain_frames(part) for part in parts])
    for number in (39, 40, 55, 79):
        with open_video(path) as video:
            assert video.num_frames == 80
            np.testing.assert_array_equal(video.read([number]).frames[0], plain[number])
            np.testing.assert_array_equal(video.read([5]).frames[0], plain[5])  # the decoder knows the others, too
            decoded = video.read(np.arange(80))
            assert decoded.missing is None
            np.testing.assert_array_equal(decoded.frames, plain)


@pytest.mark.parametrize(("codec", "options"), [("libx264", {"g": "20", "bf": "2"}), ("mpeg2video", {"g": "12"})])
def test_changed_frame_size_is_scaled_to_the_first(codec: str, options: dict[str, str], tmp_path: Path) -> None:
    sizes = ((64, 96), (48, 64))
    paths = [write_video(tmp_path / f"{s[0]}.ts", 30, codec, s, options=options) for s in sizes]
    path = joined(*paths, tmp_path / "joined.ts")
    with open_video(path) as video:
        count = video.num_frames
        assert count >= 59  # FFmpeg's MPEG-2 decoder drops the last frame before another size
        every = video.read(np.arange(count))
        assert every.missing is None and every.frames.shape[1:] == (64, 96, 3)
    np.testing.assert_array_equal(every.frames[:29], plain_frames(paths[0])[:29])
    for number in (0, 20, 35, count - 1):
        with open_video(path) as video:
            np.testing.assert_array_equal(video.read([number]).frames[0], every.frames[number])


def test_decoding_timestamps_replace_missing_ones(tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).integers(1, 5, 40)
    times = np.cumsum(gaps).tolist()
    source = write_video(tmp_path / "a.mp4", frames=40, pts=times, time_base=Fraction(1, 25), options={"bf": "0"})
    with PyAVReader(remux(source, tmp_path / "a.wmv")) as video:
        np.testing.assert_allclose(video.times(), (np.array(times) - times[0]) / 25, atol=2e-3)
    with open_video(make_avi(tmp_path)) as other:
        assert other.fps == pytest.approx(25)
