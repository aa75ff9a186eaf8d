"""Random access equals sequential decoding, bit for bit."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slowfast.datasets.decode import DecodeError, open_video, packets, require_backend
from slowfast.datasets.decode.display_order import PacketList, order_by_times
from slowfast.datasets.decode.packet_table import build_table, plan_runs
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.errors import ConfigError
from tests.decoded_tables import compare_with_scan
from tests.video_files import break_packets, plain_frames, write_sound, write_video

IRREGULAR = np.cumsum(np.random.default_rng(0).integers(1, 9, 60)).tolist()
LATE = list(range(400, 460))
VP9 = {"g": "20", "deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}
SHORT_GOP = {"g": "20"}
PYRAMID = {"x264-params": "keyint=50:scenecut=0:bframes=3:b-pyramid=normal"}

# What real collections hold: codecs, B-frames, containers without counts or timestamps, odd clocks and sizes.
KINDS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"frames": 120, "options": PYRAMID},
    "one_gop.mp4": {"options": {"g": "1000"}},
    "open_gop.mkv": {"frames": 100, "options": {"x264-params": "keyint=20:open-gop=1:scenecut=0:bframes=3"}},
    "no_key_frames.mkv": {"frames": 100, "options": {"x264-params": "keyint=20:intra-refresh=1"}},
    "no_header_count.mkv": {"options": SHORT_GOP},
    "transport.ts": {"options": SHORT_GOP},
    "flash.flv": {"options": SHORT_GOP},
    "raw_stream.h264": {"options": SHORT_GOP},
    "h264.avi": {"options": {"g": "20", "bf": "3"}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12"}, "max_b_frames": 2},
    "mpeg4_no_b.avi": {"codec": "mpeg4", "options": {"g": "12"}, "max_b_frames": 0},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "12"}, "max_b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12"}, "max_b_frames": 2},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "frames": 20},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=20:pools=1:frame-threads=1"}},
    "vp8.webm": {"codec": "libvpx", "options": VP9},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "av1.mp4": {"codec": "libsvtav1", "frames": 20, "options": {"preset": "11", "g": "10"}},
    "ten_bit.mp4": {"pix_fmt": "yuv420p10le", "options": SHORT_GOP},
    "odd_size.mkv": {"size": (63, 95), "pix_fmt": "yuv444p", "options": SHORT_GOP},
    "starts_late.mp4": {"pts": LATE, "options": SHORT_GOP},
    "starts_late.mkv": {"pts": LATE, "options": SHORT_GOP},
    "variable_rate.mp4": {"pts": IRREGULAR, "time_base": Fraction(1, 90), "options": SHORT_GOP},
    "one_frame.mp4": {"frames": 1},
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    """Return a file of each kind and all its frames, decoded sequentially."""
    folder = tmp_path_factory.mktemp("videos")
    files = {name: write_video(folder / name, **how) for name, how in KINDS.items()}
    return {name: (path, plain_frames(path)) for name, path in files.items()}


def check(path: Path, plain: np.ndarray, indices: Any, **options: Any) -> None:
    with open_video(path, **options) as video:
        assert video.num_frames == len(plain)
        decoded = video.read(indices)
        assert decoded.missing is None
        assert decoded.rows.shape == np.shape(indices)
        assert len(decoded.frames) == len(np.unique(indices))
        np.testing.assert_array_equal(decoded.frames[decoded.rows], plain[np.asarray(indices)])
        assert (video.height, video.width) == plain.shape[1:3]


@pytest.mark.parametrize("kind", KINDS)
def test_requested_frames_equal_sequential_decoding(kind: str, collection: Any) -> None:
    path, plain = collection[kind]
    every = st.lists(st.integers(0, len(plain) - 1), min_size=1, max_size=8)

    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    @given(every)
    def chosen(indices: list[int]) -> None:
        check(path, plain, indices)

    chosen()
    check(path, plain, np.arange(len(plain)))


@pytest.mark.parametrize("kind", KINDS)
def test_files_larger_than_the_cache_are_seeked(kind: str, collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "MAX_CACHED_BYTES", 0)
    path, plain = collection[kind]
    last = len(plain) - 1
    for indices in ([last], [0], [last // 2, (last + 1) // 2], [[0, last], [last // 3, last]]):
        check(path, plain, indices)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.endswith(".mp4")])
def test_sample_tables_equal_a_scan(kind: str, collection: Any) -> None:
    path, plain = collection[kind]
    used = compare_with_scan(path, [0, len(plain) // 2, len(plain) - 1])
    assert used == (kind not in ("mpeg4.mp4", "av1.mp4", "one_frame.mp4"))


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("kind", ["b_frames.mp4", "hevc.mp4", "vp9.webm", "mpeg4.avi"])
def test_threads_do_not_change_frames(kind: str, threads: int, collection: Any) -> None:
    path, plain = collection[kind]
    check(path, plain, [3, 4, len(plain) - 2], threads=threads)


def test_reader_reads_repeatedly_in_any_order(collection: Any) -> None:
    path, plain = collection["b_frames.mp4"]
    with open_video(path) as video:
        for indices in ([110], [2, 60], [61], [0], [119, 119]):
            np.testing.assert_array_equal(video.read(indices).frames, plain[np.unique(indices)])
        none = video.read(np.zeros((0, 4), int))
        assert none.frames.shape == (0, 64, 96, 3) and none.rows.shape == (0, 4)
        with pytest.raises(IndexError):
            video.read([120])


def test_only_required_packets_are_decoded(collection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = collection["b_frames.mp4"]
    with open_video(path) as video:
        assert isinstance(video, PyAVReader)
        came_out = 0
        decoder, frames = video._decoder, video._decoder._frames

        def count(packet: av.Packet | None) -> list[av.VideoFrame]:
            nonlocal came_out
            out = frames(packet)
            came_out += len(out)
            return out

        monkeypatch.setattr(decoder, "_frames", count)
        video.read([103])  # the last key frame is 100
        assert came_out <= 5
        came_out = 0
        video.read([49])  # unreferenced B-frames of 0..49 do not come out
        assert came_out <= 40


def test_frame_rates(collection: Any) -> None:
    rates = {"b_frames.mp4": 25, "no_header_count.mkv": 25, "starts_late.mp4": 25, "one_frame.mp4": 25}
    rates["variable_rate.mp4"] = 59 / (IRREGULAR[-1] - IRREGULAR[0]) * 90
    for kind, rate in rates.items():
        with open_video(collection[kind][0]) as video:
            assert video.fps == pytest.approx(rate, rel=0.05), kind


def test_timestamps_override_a_wrong_header_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", pts=[7 * number for number in range(60)], time_base=Fraction(1, 25))
    with open_video(path) as video:
        assert video.fps == pytest.approx(25 / 7, rel=0.01)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotated_frames_are_upright(rotation: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, rotation=rotation)
    expected = np.rot90(plain_frames(path), rotation // 90, axes=(1, 2))
    check(path, expected, [0, 2])
    capture = cv2.VideoCapture(str(path))  # rotates frames itself
    read, upright = capture.read()
    capture.release()
    assert read and np.abs(upright[..., ::-1].astype(int) - expected[0]).mean() < 8


def test_changed_size_is_scaled_to_the_first(tmp_path: Path) -> None:
    paths = [write_video(tmp_path / f"{i}.ts", frames=10, size=size) for i, size in enumerate([(64, 96), (48, 64)])]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    with open_video(joined) as video:
        assert video.num_frames == 20
        decoded = video.read(np.arange(20))  # timestamps start again in the middle
        assert decoded.missing is None and decoded.frames.shape == (20, 64, 96, 3)
    np.testing.assert_array_equal(decoded.frames[:10], plain_frames(paths[0]))


def test_best_stream_is_used(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    small, large = (write_video(tmp_path / f"{n}.mkv", frames=8, size=s) for n, s in ((0, (32, 48)), (1, (64, 96))))
    with av.open(str(small)) as a, av.open(str(large)) as b, av.open(str(path), "w") as out:
        copies = [out.add_stream_from_template(source.streams.video[0]) for source in (a, b)]
        for source, copy in zip((a, b), copies, strict=True):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)
    with open_video(path) as video:
        best = av.open(str(path)).streams.best("video")
        assert best is not None and (video.height, video.width) == (best.height, best.width)
        assert video.num_frames == 8


def test_hidden_vp8_references_are_not_counted(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.webm", frames=20, codec="libvpx", options={"deadline": "realtime"})
    path = tmp_path / "hidden.webm"
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        copy = out.add_stream_from_template(container.streams.video[0])
        for place, packet in enumerate(p for p in container.demux(video=0) if p.size):
            data = bytearray(bytes(packet))
            if place in (5, 11):
                data[0] &= ~0x10  # RFC 6386: show_frame
            other = av.Packet(bytes(data))
            other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
            other.is_keyframe, other.stream = packet.is_keyframe, copy
            out.mux(other)
    check(path, plain_frames(path), np.arange(18))


def test_truncated_file_is_readable(collection: Any, tmp_path: Path) -> None:
    whole, plain = collection["no_header_count.mkv"]
    path = tmp_path / "half.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with open_video(path) as video:
        n = video.num_frames
        assert 15 < n < 60
        frames = video.read(np.arange(n - 1)).frames
    known = {frame.tobytes() for frame in plain}  # B-frames after the cut are missing in the middle
    assert sum(frame.tobytes() in known for frame in frames) >= n - 3


def test_truncation_by_the_header_is_reported(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", frames=120)
    path = tmp_path / "third.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    with open_video(whole) as video:
        assert video.read([0]).missing is None
    with open_video(path) as video:
        missing = video.read([0]).missing
    assert missing is not None and missing.startswith("the file ends after")


def test_undecodable_frames_are_replaced(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", frames=20, codec="mjpeg", pix_fmt="yuvj420p")
    path = break_packets(source, tmp_path / "broken.mkv", {4, 5, 12})
    plain = plain_frames(source)
    with open_video(path) as video:
        decoded = video.read([[3, 4], [5, 6]])
        assert decoded.missing is not None and "2 of 4" in decoded.missing and "invalid data" in decoded.missing
        np.testing.assert_array_equal(decoded.frames[decoded.rows], plain[[[3, 3], [6, 6]]])
        assert video.read([12]).missing is not None
        np.testing.assert_array_equal(video.read([12]).frames[0], plain[11])
        assert video.read([0, 1]).missing is None


def test_damaged_h264_group_equals_ffmpeg(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", frames=80, options={"x264-params": "keyint=20:scenecut=0"})
    path = break_packets(source, tmp_path / "broken.mkv", set(range(20, 40)))
    plain = plain_frames(source)
    with open_video(path) as video:
        assert video.num_frames == 80
        decoded = video.read(np.arange(80))
    assert decoded.missing is not None and "20 of 80" in decoded.missing
    np.testing.assert_array_equal(decoded.frames[decoded.rows[40:]], plain[40:])
    np.testing.assert_array_equal(decoded.frames[decoded.rows[:20]], plain[:20])


def test_nothing_decodable(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", frames=10, codec="mjpeg", pix_fmt="yuvj420p")
    path = break_packets(source, tmp_path / "broken.mkv", set(range(10)))
    with open_video(path) as video, pytest.raises(DecodeError, match=r"no frame can be decoded: invalid data"):
        video.read([0, 5])


def unreadable(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return files without a decodable video, with a part of the expected reason."""
    files = {name: folder / name for name in ("empty.mp4", "text.mp4", "missing.mp4", "cut.mp4", "sound.mp4")}
    files["empty.mp4"].touch()
    files["text.mp4"].write_text("a list of things\n" * 50)
    whole = write_video(folder / "whole.mp4").read_bytes()
    files["cut.mp4"].write_bytes(whole[: len(whole) // 2])
    write_sound(files["sound.mp4"])
    reasons = {"empty": "0 bytes", "text": "invalid data", "missing": "no such file", "cut": "moov atom not found"}
    reasons |= {"sound": "no video stream"}
    (folder / "folder.mp4").mkdir()
    return {n: (p, reasons[p.stem]) for n, p in files.items()} | {"folder": (folder / "folder.mp4", "is a directory")}


def test_unreadable_files_give_one_line_and_no_open_files(tmp_path: Path) -> None:
    files = unreadable(tmp_path)
    for path, reason in files.values():
        with pytest.raises(DecodeError, match=reason) as caught:
            open_video(path)
        assert "\n" not in str(caught.value)
    held = [os.path.realpath(entry.path) for entry in os.scandir("/proc/self/fd")]
    assert not [place for place in held if place.startswith(str(tmp_path))]


def test_cover_image_is_not_a_video(tmp_path: Path) -> None:
    path = tmp_path / "cover.mp4"
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=44100)
        cover = out.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 22050), np.float32), format="fltp", layout="mono")
        tone.sample_rate = 44100
        out.mux(sound.encode(tone))
        image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        out.mux(cover.encode(image))
        for stream in (sound, cover):
            out.mux(stream.encode(None))
    with pytest.raises(DecodeError, match="only a cover image"):
        open_video(path)


def test_names_with_colons_and_percent_signs(tmp_path: Path) -> None:
    path = write_video(tmp_path / "plain.mp4", frames=5)
    for name in ("http:clip.mp4", "%03d.mp4", "a b'c.mp4"):
        other = path.rename(tmp_path / name)
        with open_video(other) as video:
            assert video.num_frames == 5
        path = other


def test_ffmpeg_keeps_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path, _ in unreadable(tmp_path).values():
        with pytest.raises(DecodeError):
            open_video(path)
    out, err = capfd.readouterr()
    assert "moov" not in out + err and "Invalid" not in out + err


def test_unknown_backend() -> None:
    with pytest.raises(ConfigError, match=r"decord.*pyav, torchcodec"):
        require_backend("decord")


def listed(pts: list[int | None], keys: set[int], shown: list[bool] | None = None) -> PacketList:
    """Return the scanned packets."""
    visible = np.array(shown if shown is not None else [True] * len(pts))
    return PacketList(pts, pts, [place in keys for place in range(len(pts))], visible, [])


def a_stream(reorders: bool, container: str = "mp4") -> Any:
    """Return a stub of a stream with the properties that the packet order depends on."""
    context = SimpleNamespace(has_b_frames=reorders)
    return SimpleNamespace(codec_context=context, container=SimpleNamespace(format=SimpleNamespace(name=container)))


def test_packets_are_ordered_by_time_and_start_at_a_key() -> None:
    # Decoding order: I at 4, P at 7, its B-frames, the last one not shown, a later I with a leading picture.
    packet_list = listed([4, 7, 5, 6, 9, 8, 8], {0, 4}, [True, True, True, False, True, True, True])
    rank = order_by_times(packet_list, a_stream(True, "avi"))
    assert rank is None  # a container without presentation times
    rank = order_by_times(packet_list, a_stream(False))
    assert rank is not None
    table = build_table(rank, packet_list.key, packet_list.shown, [])
    assert table.packet_of.tolist() == [0, 2, 1, 5, 6, 4]
    assert table.frame_of.tolist() == [0, 2, 1, -1, 5, 3, 4]
    runs = [(run.first, run.last) for run in plan_runs(table, np.array([1]))]
    assert runs == [(0, 2)]
    runs = [(run.first, run.last) for run in plan_runs(table, np.array([0, 5]))]
    assert runs == [(0, 0), (4, 4)]
    runs = [(run.first, run.last) for run in plan_runs(table, np.array([4, 5]))]  # 4 is shown before its key
    assert runs == [(0, 6)]


def test_second_fields_belong_to_the_previous_frame() -> None:
    shown = np.array([True, False, True, False, True])
    table = build_table(np.arange(5), [True, True, False, False, True], shown, [1, 3])
    assert table.keys.tolist() == [0, 4]  # decoding cannot start at a second field
    assert table.frame_of.tolist() == [0, 0, 1, 1, 2]
    runs = [(run.first, run.last) for run in plan_runs(table, np.array([1]))]
    assert runs == [(0, 3)]


def test_wrong_timestamps_are_ignored() -> None:
    assert order_by_times(listed([5, 6, 0, 1], {0, 2}), a_stream(False)) is None  # timestamps start again
    assert order_by_times(listed([0, None], {0}), a_stream(False)) is None
    assert order_by_times(listed([0, 1, 2, 3], {0}), a_stream(True)) is None  # decoding times
    assert order_by_times(listed([0, 3, 3, 2], {0}), a_stream(True)) is None
    assert order_by_times(listed([0, 1, 2, 3], {0}), a_stream(False)) is not None


def test_frames_of_a_damaged_file_ascend(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=90, options={"g": "30", "bf": "3"})
    for seed in range(8):
        data = bytearray(path.read_bytes())
        rng = np.random.default_rng(seed)
        place = int(rng.integers(len(data) // 4, len(data) // 2))
        data[place : place + 600] = rng.bytes(600)
        (tmp_path / "b.mkv").write_bytes(data)
        with PyAVReader(tmp_path / "b.mkv") as video:
            numbers = [number for number, _ in video.every_frame()]
        assert numbers and numbers == sorted(set(numbers))
