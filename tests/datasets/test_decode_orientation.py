"""Orientation and color conversion equal the ffmpeg program for rotated and mirrored files and all color matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import av.filter
import cv2
import numpy as np
import pytest
from av import BitStreamFilterContext

from slowfast.datasets.decode import open_video
from slowfast.prepare.encode import PrepareSettings, prepare_video
from slowfast.prepare.frames import FrameSettings, extract
from tests.coded_pictures import set_track_matrix
from tests.video_files import plain_frames, write_video

pytestmark = pytest.mark.slow

ONE, W = 1 << 16, 1 << 30
# Display matrices (a, b, c, d: x' = a x + c y, y' = b x + d y) and the transform of a stored picture (H, W, 3).
ORIENTATIONS: dict[str, tuple[tuple[int, int, int, int], Any]] = {
    "upright": ((ONE, 0, 0, ONE), lambda image: image),
    "left-right": ((-ONE, 0, 0, ONE), lambda image: image[:, ::-1]),
    "up-down": ((ONE, 0, 0, -ONE), lambda image: image[::-1]),
    "half a turn": ((-ONE, 0, 0, -ONE), lambda image: image[::-1, ::-1]),
    "clockwise": ((0, ONE, -ONE, 0), lambda image: np.rot90(image, -1)),
    "counterclockwise": ((0, -ONE, ONE, 0), lambda image: np.rot90(image, 1)),
    "transposed": ((0, ONE, ONE, 0), lambda image: image.swapaxes(0, 1)),
    "transposed and half a turn": ((0, -ONE, -ONE, 0), lambda image: image.swapaxes(0, 1)[::-1, ::-1]),
}


def oriented(name: str, folder: Path, suffix: str = ".mp4", **how: Any) -> tuple[Path, np.ndarray]:
    """Return a file with a display matrix and its upright frames."""
    matrix, turn = ORIENTATIONS[name]
    path = write_video(folder / f"a{suffix}", frames=6, options={"g": "3"}, **how)
    set_track_matrix(path, (matrix[0], matrix[1], 0, matrix[2], matrix[3], 0, 0, 0, W))
    return path, np.stack([turn(image) for image in plain_frames(path)])


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_all_eight_orientations(name: str, tmp_path: Path) -> None:
    for suffix, how in ((".mp4", {}), (".mov", {"codec": "mpeg4"})):
        path, expected = oriented(name, tmp_path, suffix, **how)
        for indices in ([0, 1, 2, 3, 4, 5], [5], [2]):
            with open_video(path) as video:
                decoded = video.read(indices)
                assert decoded.missing is None
                np.testing.assert_array_equal(decoded.frames, expected[indices])
                assert (video.height, video.width) == expected.shape[1:3]


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_prepared_copies_and_extracted_frames_are_upright(name: str, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    path, expected = oriented(name, tmp_path / "videos")
    prepare_video(path, tmp_path / "b.mp4", PrepareSettings(short_side=64, crf=1))
    copy = plain_frames(tmp_path / "b.mp4")  # not rotated: every program shows it upright
    assert copy.shape == expected.shape and np.abs(copy.astype(int) - expected).mean() < 3
    extract(tmp_path / "videos", tmp_path / "frames", FrameSettings(fps=None, quality=100), workers=1)
    image = cv2.imread(str(tmp_path / "frames" / "a" / "00004.jpg"))
    assert image is not None and image.shape == expected[3].shape
    assert np.abs(image[..., ::-1].astype(int) - expected[3]).mean() < 6


def filtered(source: Path, target: Path, description: str) -> Path:
    """Copy a video's packets through a bit stream filter."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        change = BitStreamFilterContext(description, stream, copy)
        for packet in container.demux(stream):
            for changed in change.filter(packet if packet.size else None):
                changed.stream = copy
                out.mux(changed)
    return target


def test_orientation_messages_keep_the_first_size(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.ts", frames=30, options={"x264-params": "keyint=10:scenecut=0:bframes=2"})
    turn = "h264_metadata=display_orientation=insert:rotate=90"  # in key frames only
    path = filtered(source, tmp_path / "b.ts", turn)
    plain = plain_frames(path)
    with av.open(str(path)) as container:
        turned = [frame.rotation != 0 for frame in container.decode(video=0)]
    assert turned[0] and not all(turned) and sum(turned) > 1
    with open_video(path) as video:
        every = video.read(np.arange(30))
    assert every.missing is None and every.frames.shape == (30, 96, 64, 3)
    np.testing.assert_array_equal(every.frames[0], np.rot90(plain[0], 1))
    scaled = np.stack([cv2.resize(image, (64, 96), interpolation=cv2.INTER_CUBIC) for image in plain])
    for number, own in enumerate(turned):
        if not own:
            assert np.abs(every.frames[number].astype(int) - scaled[number]).mean() < 8
    for number in (3, 11, 20, 29):
        with open_video(path) as video:
            alone = video.read([number])
            assert alone.missing is None
            np.testing.assert_array_equal(alone.frames[0], every.frames[number])


def test_other_angles_equal_the_rotate_filter(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=2)
    cosine = round(ONE * np.cos(np.radians(30)))
    sine = round(ONE * np.sin(np.radians(30)))
    set_track_matrix(path, (cosine, sine, 0, -sine, cosine, 0, 0, 0, W))  # clockwise
    plain = plain_frames(path)
    with open_video(path) as video:
        frame = video.read([0]).frames[0].astype(int)
    turn = cv2.getRotationMatrix2D((47.5, 31.5), -30, 1)
    expected = cv2.warpAffine(plain[0], turn, (96, 64)).astype(int)
    assert frame.shape == (64, 96, 3)
    assert np.abs(frame - expected).mean() < 12 < np.abs(frame - plain[0]).mean()


@pytest.mark.parametrize("matrix", [8, 10, 11, 12, 13, 14])
def test_unsupported_color_matrices(matrix: int, tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.mp4", frames=8)
    path = filtered(source, tmp_path / "b.mp4", f"h264_metadata=matrix_coefficients={matrix}")
    expected = plain_frames(source)  # the usual matrix, as FFmpeg's programs take it
    with open_video(path) as video:
        decoded = video.read(np.arange(8))
    assert decoded.missing is None
    # 10 (BT.2020, constant luminance) has other coefficients than the usual matrix.
    assert np.abs(decoded.frames.astype(int) - expected).mean() < (12 if matrix == 10 else 1)
    assert prepare_video(path, tmp_path / "c.mp4", PrepareSettings(short_side=64, crf=1)).frames == 8


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("libx264", "yuv422p10le"), ("ffv1", "yuv410p"), ("ffv1", "yuva420p"), ("ffv1", "gray10le"), ("ffv1", "bgr0")],
)
def test_other_formats_equal_the_scale_filter(codec: str, pix_fmt: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=4, codec=codec, pix_fmt=pix_fmt)
    with open_video(path) as video:
        np.testing.assert_array_equal(video.read(np.arange(4)).frames, plain_frames(path))
