"""Videos for benchmarks, in folders that the datasets read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from demo_data.scene import MOTIONS, animate, draw_path, render_clip, two_colors
from slowfast.config.node import ConfigNode
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import VIDEO_SUFFIXES
from slowfast.datasets.decode.rgb import make_convertible
from slowfast.errors import DataError
from slowfast.prepare.encode import PrepareSettings
from slowfast.prepare.shards import write_shards
from slowfast.prepare.videos import prepare_folder
from slowfast.utils.files import MIB
from slowfast.utils.text import plain


@dataclass(frozen=True)
class SyntheticClip:
    """Rendered clip encoded like those of Kinetics: few keyframes, and B-frames as references.

    Args:
        frames: Number of frames.
        height: Frame height in pixels.
        width: Frame width in pixels.
        rate: Frames per second.
        keyframe_interval: Frames between keyframes.
        grain: Amplitude of the noise in gray levels, which makes clips as expensive to decode as filmed ones.
    """

    frames: int = 300
    height: int = 256
    width: int = 340
    rate: int = 30
    keyframe_interval: int = 250
    grain: int = 10


def find_videos(paths: Sequence[Path]) -> list[Path]:
    """Return all videos of files and folders, sorted within a folder. Raises DataError if there are none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in VIDEO_SUFFIXES)
            if not inside:
                raise DataError(f"--videos {plain(path)} contains no videos. Give files or a folder of videos")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"--videos {plain(path)} does not exist. Give files or a folder of videos")
    return found


def make_videos(folder: Path, clip: SyntheticClip = SyntheticClip(), count: int = 2) -> list[Path]:
    """Render and encode synthetic clips, the same in every call."""
    folder.mkdir(parents=True)
    motions = list(MOTIONS.values())
    paths = []
    for number in range(count):
        rng = np.random.default_rng(number)
        frames = render_clip(motions[number % len(motions)], clip.frames, clip.height, clip.width, rng)
        _add_grain(frames, clip.grain, rng)
        paths.append(folder / f"synthetic_{number}.mp4")
        _encode(paths[-1], frames, clip)
    return paths


def make_fixed_camera_video(path: Path, frames: int = 300) -> Path:
    """Render and encode a video of a fixed camera: a small object that crosses a still background.

    Args:
        path: File to write; its folder is created.
        frames: Number of frames.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clip, rng = SyntheticClip(frames=frames, height=360, width=640), np.random.default_rng(0)
    whole = draw_path(MOTIONS["right"], frames, clip.height, clip.width, rng)
    small = replace(whole, radius=whole.radius / 3)
    _encode(path, animate(small, clip.height, clip.width, two_colors, rng, background_speed=(0, 0)), clip)
    return path


def _add_grain(frames: np.ndarray, strength: int, rng: np.random.Generator) -> None:
    """Add noise to uint8 frames (T, H, W, 3) in place: one pattern, randomly shifted in each frame."""
    height, width = frames.shape[1:3]
    pattern = rng.integers(-strength, strength + 1, (height, width, 1), dtype=np.int16)
    for frame in frames:
        moved = np.roll(pattern, (rng.integers(height), rng.integers(width)), axis=(0, 1))
        frame[:] = np.clip(frame + moved, 0, 255)


def _add_stream(container: OutputContainer, rate: int, keyframe_interval: int, size: tuple[int, int]) -> VideoStream:
    """Add an H.264 stream with the default GOP structure of x264 except for the keyframe interval."""
    options = {"g": str(keyframe_interval), "x264-params": "scenecut=0:bframes=3"}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.height, stream.width = size
    stream.pix_fmt = "yuv420p"
    return stream


def _encode(path: Path, frames: np.ndarray, clip: SyntheticClip) -> None:
    with av.open(str(path), "w") as container:
        stream = _add_stream(container, clip.rate, clip.keyframe_interval, (clip.height, clip.width))
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def enlarge_video(source: Path, target: Path, size: tuple[int, int] = (1080, 1920), frames: int = 150) -> Path:
    """Encode the first frames of a video at another size, as H.264 with the GOP structure of the synthetic clips.

    Args:
        source: Video to read.
        target: File to write; its folder is created.
        size: Height and width of the new frames (pixels).
        frames: Number of frames, at most.

    Raises:
        DataError: If the source cannot be decoded.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    convert = VideoReformatter()
    try:
        with PyAVReader(source) as video, av.open(str(target), "w") as container:
            rate = max(1, round(video.fps))
            stream = _add_stream(container, rate, SyntheticClip.keyframe_interval, size)
            for number, (_, frame) in enumerate(itertools.islice(video.every_frame(), frames)):
                make_convertible(frame)
                larger = convert.reformat(frame, size[1], size[0], "yuv420p", interpolation=Interpolation.BICUBIC)
                larger.pts, larger.time_base = number, Fraction(1, rate)
                larger.pict_type = PictureType.NONE  # the encoder chooses
                container.mux(stream.encode(larger))
            container.mux(stream.encode(None))
    except DecodeError as error:
        raise DataError(f"--videos: {source.name} cannot be read: {error}") from error
    return target


def link_videos(videos: Sequence[Path], folder: Path) -> Path:
    """Make a folder of links to videos."""
    folder.mkdir(parents=True)
    for number, video in enumerate(videos):
        os.symlink(video.resolve(), folder / f"{number:05d}_{video.name}")
    return folder


def prepare_videos(source: Path, target: Path, workers: int) -> Path:
    """Re-encode the videos of a folder like slowfast prepare. Raises DataError if one cannot be read."""
    summary = prepare_folder(source, target, PrepareSettings(), workers)
    for name, reason in summary.failed.items():
        raise DataError(f"--videos: {name} cannot be prepared: {reason}")
    return target


def on_folder(cfg: ConfigNode, folder: Path) -> ConfigNode:
    """Return a config for a folder of videos, whose index is written beside it; all labels are 0."""
    index = folder.with_name(f"{folder.name}_index")
    index.mkdir()
    names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    lines = "".join(f"{name}{cfg.DATA.PATH_LABEL_SEPARATOR}0\n" for name in names)
    for split in ("train", "val", "test"):
        (index / f"{split}.csv").write_text(lines)
    folders = ("DATA.PATH_TO_DATA_DIR", str(index), "DATA.PATH_PREFIX", str(folder))
    return with_overrides(cfg, *folders, "TRAIN.DATASET", "kinetics", "TEST.DATASET", "kinetics")


def in_shards(cfg: ConfigNode, target: Path) -> ConfigNode:
    """Pack the videos of a config of `on_folder` into shards; return the config for these."""
    index_files = [Path(cfg.DATA.PATH_TO_DATA_DIR, f"{split}.csv") for split in ("train", "val", "test")]
    write_shards(Path(cfg.DATA.PATH_PREFIX), target, index_files, cfg.DATA.PATH_LABEL_SEPARATOR, 512 * MIB)
    return with_overrides(cfg, "DATA.PATH_TO_DATA_DIR", str(target), "DATA.PATH_PREFIX", str(target))


def with_overrides(cfg: ConfigNode, *settings: object) -> ConfigNode:
    """Return a frozen copy of a config with overrides: KEY, value, KEY, value."""
    copy = cfg.clone()
    copy.defrost()
    copy.merge_from_list(list(settings))
    copy.freeze()
    return copy
