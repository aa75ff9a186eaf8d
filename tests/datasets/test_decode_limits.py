"""Limits of decoding: unusual files raise DecodeError promptly; valid ones are read."""

from __future__ import annotations

import os
import socket
import struct
import time
import zlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from slowfast.datasets.decode import DecodeError, open_video, reader
from slowfast.datasets.decode import image as image_module
from slowfast.datasets.decode.image import ImageReader, read_image
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import MAX_IMAGE_BYTES
from slowfast.prepare.encode import PrepareSettings, prepare_video
from tests.video_files import plain_frames, write_video

pytestmark = pytest.mark.slow


def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path) -> None:
    pipe, listening = tmp_path / "pipe.mp4", tmp_path / "socket.jpg"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        for path in (pipe, listening, Path("/dev/zero")):
            for read in (open_video, read_image, reader.check_file):
                with pytest.raises(DecodeError, match="not a regular file"):
                    read(path)


def png(width: int, height: int, lines: int) -> bytes:
    """Return a PNG file of a gray image, with its first lines only."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    compressor = zlib.compressobj()
    data = b"".join(compressor.compress(bytes(1 + width)) for _ in range(lines)) + compressor.flush()
    header = struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_oversized_image_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(30000, 30000, 100))
    assert bomb.stat().st_size < 2**20
    with pytest.raises(DecodeError, match="30000 x 30000 pixels exceed the limit"):
        ImageReader(bomb)
    assert read_image(_saved(tmp_path / "a.png", png(300, 200, 200))).shape == (200, 300, 3)
    monkeypatch.setattr(image_module, "MAX_IMAGE_PIXELS", 4000)
    picture = np.zeros((50, 90, 3), np.uint8)
    for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff", ".ppm"):
        path = tmp_path / f"a{suffix}"
        assert cv2.imwrite(str(path), picture)
        with pytest.raises(DecodeError, match="90 x 50 pixels"):
            read_image(path)


def _saved(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_oversized_image_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.write(b"\xff\xd8\xff")
        file.truncate(MAX_IMAGE_BYTES + 1)
    with pytest.raises(DecodeError, match="more than the limit"):
        read_image(path)


def test_reads_beyond_the_memory_limit_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", frames=20)
    monkeypatch.setattr(reader, "MAX_READ_BYTES", 10 * 64 * 96 * 3)
    with open_video(path) as video:
        assert len(video.read(np.arange(10)).frames) == 10
        with pytest.raises(DecodeError, match="11 frames of 96 x 64 pixels"):
            video.read(np.arange(11))
    monkeypatch.setattr(reader, "MAX_FRAME_PIXELS", 1000)
    with pytest.raises(DecodeError, match="frames of 96 x 64 pixels exceed the limit"):
        open_video(path)


def test_endless_scan_hits_the_time_limit(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=20)
    try:
        os.truncate(path, 2**38)
    except OSError:
        pytest.skip("this disk takes no sparse file of 256 GiB")
    with pytest.raises(DecodeError, match=r"longer than 0.5 s \(DATA_LOADER.TIMEOUT\)"):
        open_video(path, timeout=0.5)


def test_time_limit_covers_decoding(tmp_path: Path) -> None:
    with PyAVReader(write_video(tmp_path / "a.mp4"), timeout=600) as video:
        assert video.read([3]).missing is None
        video._decoder._deadline._end = time.monotonic() - 1
        with pytest.raises(DecodeError, match="longer than 600 s"):
            video.read([5])


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4", ".flv", ".wmv"])
def test_metadata_in_another_encoding_is_accepted(suffix: str, tmp_path: Path) -> None:
    codec = "flv" if suffix == ".flv" else "mpeg4"
    source, path = write_video(tmp_path / "source.avi", frames=5, codec=codec), tmp_path / f"a{suffix}"
    with av.open(str(source)) as container, av.open(str(path), "w") as out:
        out.metadata["title"] = "caf\u00e9"
        copy = out.add_stream_from_template(container.streams.video[0])
        copy.metadata["title"] = "caf\u00e9"
        for packet in container.demux(video=0):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    data = path.read_bytes()
    wide = "caf\u00e9".encode("utf-16-le")
    assert b"caf\xc3\xa9" in data or wide in data
    path.write_bytes(data.replace(b"caf\xc3\xa9", b"caf\xe9 ").replace(wide, b"c\0a\0f\0\x00\xd8"))
    with open_video(path) as video:
        decoded = video.read(np.arange(5))
    assert decoded.missing is None
    np.testing.assert_array_equal(decoded.frames, plain_frames(source))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_slow_frame_rate_is_not_damage(suffix: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / f"a{suffix}", frames=5, codec="mpeg4", time_base=Fraction(2), pts=list(range(5)))
    with open_video(path) as video:
        assert (video.num_frames, video.fps) == (5, pytest.approx(0.5))
        assert video.read(np.arange(5)).missing is None
    prepared = prepare_video(path, tmp_path / "b.mp4", PrepareSettings(short_side=64))
    assert (prepared.frames, prepared.damage) == (5, None)


def test_long_last_frame_is_not_damage(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv"):
        times = [*range(20), 240]
        path = write_video(tmp_path / f"a{suffix}", frames=21, pts=times, time_base=Fraction(1, 25))
        with open_video(path) as video:
            assert video.read([20]).missing is None


def damaged(source: Path, target: Path, seed: int) -> None:
    """Copy a file with a few flipped bytes in its second half."""
    data = bytearray(source.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(data) // 2, len(data), 4):
        data[place] ^= int(rng.integers(1, 256))
    target.write_bytes(data)


def test_frames_marked_corrupt_are_reported(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mkv", frames=40, size=(128, 160), options={"g": "20", "bf": "2"})
    path, marked = tmp_path / "b.mkv", 0
    for seed in range(12):
        damaged(source, path, seed)
        with av.open(str(path)) as container:
            try:
                corrupt = sum(frame.is_corrupt for frame in container.decode(video=0))
            except av.FFmpegError:
                continue
        with open_video(path) as video:
            missing = video.read(np.arange(video.num_frames)).missing
        assert (missing is not None) or not corrupt
        marked += corrupt > 0
        if missing is not None and "marked by the decoder" in missing:
            prepared = prepare_video(path, tmp_path / "c.mp4", PrepareSettings(short_side=64, preset="ultrafast"))
            assert prepared.damage is not None and "marked by the decoder" in prepared.damage
    assert marked >= 2


def test_file_that_ends_within_a_frame_is_reported(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.flv", frames=60)
    with av.open(str(whole)) as file:
        packet = [packet for packet in file.demux(video=0) if packet.size][40]
        assert packet.pos is not None
        middle = packet.pos + packet.size // 2
    path = tmp_path / "b.flv"
    path.write_bytes(whole.read_bytes()[:middle])
    with open_video(path) as video:
        assert video.read([0]).missing == "the file ends in the middle of a frame"
