"""Files that FFmpeg can only read partly or not at all: one clear message each."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from PIL import Image
from video_files import picture, write_video

from slowfast.datasets.decode import DecodeError, open_video


def read_all(path: Path) -> tuple[int, str | None]:
    """Return the number of frames and what is missing."""
    with open_video(path) as video:
        return video.num_frames, video.read(range(video.num_frames)).missing


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """A raw MPEG-4 stream with a key frame every 30 frames, and where its frames start."""
    path = tmp_path_factory.mktemp("raw") / "a.m4v"
    with av.open(str(path), "w", format="m4v") as out:
        stream = out.add_stream("mpeg4", rate=25, options={"g": "30"})
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for number in range(60):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number, 64, 96), format="rgb24")))
        out.mux(stream.encode(None))
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data.startswith(b"\0\0\1\xb6", at)]
    assert len(starts) == 60
    return data, starts


def test_a_raw_stream_without_its_first_key_frame(raw: tuple[bytes, list[int]], tmp_path: Path) -> None:
    data, starts = raw
    path = tmp_path / "cut.m4v"
    path.write_bytes(data)
    assert read_all(path) == (60, None)
    path.write_bytes(data[: starts[0]] + data[starts[1] :])
    assert read_all(path) == (59, "29 of 59 frames come before the first key frame")
    path.write_bytes(data[: starts[0]] + data[starts[1] : starts[29]])
    assert read_all(path) == (28, "28 of 28 frames come before the first key frame")
    path.write_bytes(data[starts[1] : starts[29]])  # without the header of the codec, too
    with pytest.raises(DecodeError, match="no header of its codec and no key frame|is a raw MPEG-4 stream that"):
        read_all(path)
    path.write_bytes(data[:40])
    with pytest.raises(DecodeError, match="no video frames|raw MPEG-4 stream|can be decoded"):
        read_all(path)


@pytest.mark.parametrize("share", [0.3, 0.8, 0.95])
def test_a_truncated_wmv(tmp_path: Path, share: float) -> None:
    path = write_video(tmp_path / "a.wmv", codec="wmv2")
    assert read_all(path) == (60, None)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    frames, missing = read_all(path)
    assert frames <= 60 and missing is not None
    assert f"the file has {int(len(data) * share)} of its {len(data)} bytes" in missing
    # Recordings of live streams do not state their size.
    flags = data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 16 + 72
    path.write_bytes((data[:flags] + bytes([data[flags] | 1]) + data[flags + 1 :])[: int(len(data) * share)])
    assert "bytes" not in (read_all(path)[1] or "")


def test_a_truncated_avi_says_so_wherever_it_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", frames=12, size=(32, 32))
    assert read_all(path) == (12, None)
    data = path.read_bytes()
    starts = [at for at in range(data.index(b"movi"), len(data)) if data.startswith(b"00dc", at)][:12]
    for at in range(starts[1], starts[-1], 3):
        path.write_bytes(data[:at])
        frames, missing = read_all(path)
        assert frames <= 12 and missing is not None, at
    path.write_bytes(data[: data.index(b"idx1")])
    assert read_all(path) == (12, None), "only the index is missing"


def test_animated_webp_is_decoded_or_refused(tmp_path: Path) -> None:
    """FFmpeg of PyAV 19 decodes it, that of PyAV 18 does not."""
    first, *others = (Image.fromarray(picture(number, 32, 40)) for number in range(5))
    first.save(tmp_path / "a.webp", save_all=True, append_images=others, duration=100)
    try:
        assert read_all(tmp_path / "a.webp") == (5, None)
    except DecodeError as error:
        assert "FFmpeg cannot decode animated WebP. Convert it to MP4" in str(error)
