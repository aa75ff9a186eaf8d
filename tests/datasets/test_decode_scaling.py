"""Scaling to a short side equals FFmpeg's area averaging; smaller frames are unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny_settings

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.datasets import build_dataset
from slowfast.datasets.clip_dataset import VideoEvalDataset, VideoTrainDataset
from slowfast.datasets.decode import DecodeError, open_video, reader
from slowfast.datasets.decode.reader import scaled_down
from tests.datasets.test_decode_order import joined
from tests.datasets.test_torchcodec import needs_torchcodec
from tests.video_files import plain_frames, write_video

pytestmark = pytest.mark.slow


def largest_difference(one: np.ndarray, other: np.ndarray) -> int:
    assert one.shape == other.shape
    return int(np.abs(one.astype(int) - other).max())


def read_all(path: Path, short_side: int | None) -> np.ndarray:
    """Read all frames and check the reported size."""
    with open_video(path, short_side=short_side) as video:
        size = video.height, video.width
        decoded = video.read(np.arange(video.num_frames))
    assert decoded.missing is None and decoded.frames.shape[1:3] == size
    return decoded.frames


@pytest.mark.parametrize(
    ("size", "expected"),  # width, height
    [
        ((1920, 1080), (455, 256)),  # 455.11
        ((1280, 720), (455, 256)),
        ((854, 480), (455, 256)),  # 455.47
        ((640, 480), (341, 256)),  # 341.33
        ((480, 360), (341, 256)),
        ((642, 360), (457, 256)),  # 456.53
        ((1080, 1920), (256, 455)),
        ((771, 512), (386, 256)),  # 385.5
        ((512, 512), (256, 256)),
        ((3000, 257), (2988, 256)),  # 2988.33
        ((3000, 256), (3000, 256)),
        ((340, 256), (340, 256)),
        ((160, 120), (160, 120)),
    ],
)
def test_size_equals_the_published_decoder(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert scaled_down(*size, 256) == expected
    assert scaled_down(*size, None) == size


@pytest.mark.parametrize("size", [(480, 854), (720, 1280), (1080, 1920), (1280, 720), (360, 642)])
def test_frames_equal_the_area_filter(size: tuple[int, int], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=4, size=size, options={"preset": "ultrafast"})
    width, height = scaled_down(size[1], size[0], 256)
    frames = read_all(path, 256)
    assert largest_difference(frames, plain_frames(path, f"{width}:{height}:flags=area")) <= 2
    assert largest_difference(frames, plain_frames(path, f"{width}:{height}:flags=bicubic")) > 20
    with open_video(path, short_side=256) as video:  # a single frame whose size is still unknown
        np.testing.assert_array_equal(video.read([2]).frames[0], frames[2])


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264", "yuv420p10le"),
        ("libx264", "yuv422p"),
        ("libx264", "yuv444p"),
        ("mjpeg", "yuvj420p"),
        ("ffv1", "yuv410p"),
        ("ffv1", "gray10le"),
        ("ffv1", "bgr0"),
    ],
)
def test_every_pixel_format_equals_the_area_filter(codec: str, pix_fmt: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=2, codec=codec, pix_fmt=pix_fmt, size=(180, 322))
    assert largest_difference(read_all(path, 100), plain_frames(path, "179:100:flags=area")) <= 2


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_rotated_frames_are_scaled_and_upright(quarter_turns: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, size=(180, 322), rotation=90 * quarter_turns)
    expected = np.rot90(plain_frames(path, "179:100:flags=area"), quarter_turns, axes=(1, 2))
    frames = read_all(path, 100)
    assert frames.shape[1:3] == ((179, 100) if quarter_turns % 2 else (100, 179))
    assert largest_difference(frames, expected) <= 2


@pytest.mark.parametrize("how", [{}, {"rotation": 90}, {"pix_fmt": "yuv420p10le"}], ids=["plain", "turned", "10 bit"])
@pytest.mark.parametrize("size", [(256, 340), (456, 256), (120, 160)])
def test_smaller_frames_are_unchanged(size: tuple[int, int], how: dict[str, Any], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, size=size, **how)
    plain = plain_frames(path)
    expected = np.rot90(plain, 1, axes=(1, 2)) if "rotation" in how else plain
    np.testing.assert_array_equal(read_all(path, 256), expected)
    np.testing.assert_array_equal(read_all(path, None), expected)


def test_larger_frames_are_averaged_to_the_first_size(tmp_path: Path) -> None:
    sizes = ((64, 96), (192, 256))
    parts = [write_video(tmp_path / f"{s[0]}.ts", 20, size=s, options={"g": "20"}) for s in sizes]
    frames = read_all(joined(*parts, tmp_path / "joined.ts"), 64)
    np.testing.assert_array_equal(frames[:20], plain_frames(parts[0]))
    assert largest_difference(frames[20:], plain_frames(parts[1], "96:64:flags=area")) <= 2


def test_memory_limit_applies_to_scaled_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", frames=4, size=(128, 192))
    monkeypatch.setattr(reader, "MAX_READ_BYTES", 4 * 3 * 64 * 96)
    assert read_all(path, 64).shape == (4, 64, 96, 3)
    with open_video(path) as video, pytest.raises(DecodeError, match="more than the limit"):
        video.read(np.arange(4))


@needs_torchcodec
@pytest.mark.parametrize("rotation", [0, 90])
def test_torchcodec_is_close(rotation: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=2, size=(1080, 1920), rotation=rotation)
    with open_video(path, "torchcodec", short_side=256) as video:
        frames = video.read([0, 1]).frames
        assert (video.height, video.width) == frames.shape[1:3] == ((455, 256) if rotation else (256, 455))
    difference = np.abs(frames.astype(int) - read_all(path, 256))
    assert difference.mean() < 2 and (difference > 2).mean() < 0.05
    with open_video(path, "torchcodec", short_side=1080) as video, open_video(path, "torchcodec") as plain:
        np.testing.assert_array_equal(video.read([0]).frames, plain.read([0]).frames)


# ------------------------------------------------------------------ datasets
@pytest.fixture
def large_cfg(tmp_path: Path) -> ConfigNode:
    """Return a config for two videos of 96 lines with training scale 32."""
    for name in ("one", "two"):
        write_video(tmp_path / "videos" / f"{name}.mp4", frames=24, size=(96, 162), options={"bf": "2"})
    for split in ("train", "val", "test"):
        (tmp_path / "videos" / f"{split}.csv").write_text("one.mp4 0\ntwo.mp4 1\n")
    cfg = get_cfg()
    cfg.merge_from_list([*tiny_settings(tmp_path / "videos", tmp_path / "out"), "TRAIN.BATCH_SIZE", 2])
    return cfg


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()


@pytest.mark.parametrize(("split", "crops"), [("val", 3), ("test", 1), ("test", 3)])
def test_views_are_cropped_from_averaged_frames(large_cfg: ConfigNode, split: str, crops: int, tmp_path: Path) -> None:
    large_cfg.TEST.NUM_SPATIAL_CROPS = crops
    dataset = build_dataset(large_cfg, split)
    assert isinstance(dataset, VideoEvalDataset)
    video = dataset[0]
    assert video.frames is not None and not video.failures
    every = plain_frames(tmp_path / "videos" / "one.mp4", "54:32:flags=area")
    with open_video(tmp_path / "videos" / "one.mp4") as opened:
        wanted = dataset.temporal.views(opened.num_frames, opened.fps, dataset.views)
    assert largest_difference(video.frames[video.frame_index].numpy(), every[wanted]) <= 2


def test_frames_are_not_scaled_below_the_crop(large_cfg: ConfigNode, tmp_path: Path) -> None:
    large_cfg.DATA.TEST_CROP_SIZE = 48  # larger than DATA.TRAIN_JITTER_SCALES[0]
    dataset = build_dataset(large_cfg, "test")
    assert isinstance(dataset, VideoEvalDataset)
    frames = dataset[0].frames
    assert frames is not None and frames.shape[1:] == (48, 81, 3)
    first = plain_frames(tmp_path / "videos" / "one.mp4", "81:48:flags=area")[0]
    assert largest_difference(frames[0].numpy(), first) <= 2


def test_training_clips_come_from_averaged_frames(large_cfg: ConfigNode, tmp_path: Path) -> None:
    dataset, again = build_dataset(large_cfg, "train"), build_dataset(large_cfg, "train")
    assert isinstance(dataset, VideoTrainDataset)
    seen: list[np.ndarray] = []
    transform = dataset.transform

    def spy(frames: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seen.append(frames[rows])
        return transform(frames, rows, rng)

    dataset.transform = spy  # type: ignore[assignment]
    for key in ((0, 0), (1, 0), (1, 1)):
        clips, repeated = dataset[key].clips, again[key].clips
        assert isinstance(clips, np.ndarray) and isinstance(repeated, np.ndarray)
        np.testing.assert_array_equal(clips, repeated)
    every = plain_frames(tmp_path / "videos" / "one.mp4", "54:32:flags=area").astype(int)  # both files are equal
    assert len(seen) == 3
    for clip in seen:
        assert clip.shape[1:] == (32, 54, 3)
        assert all(min(np.abs(every - frame).max(axis=(1, 2, 3))) <= 2 for frame in clip)
