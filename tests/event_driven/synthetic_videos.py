"""Synthetic video sources, runs on them, and readers of their reports."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from slowfast.cli.setup import load_config
from slowfast.datasets.types import Record
from slowfast.event_driven.sources import Source, Sources
from slowfast.event_driven.video_frames import OpenVideo
from slowfast.event_driven.videos import VideoRun
from tests.event_driven.settings import EMPTY, on_videos
from tests.video_files import picture

STILL_FRAMES, CPU = 20, torch.device("cpu")


def write_still(path: Path, size: tuple[int, int] = (40, 48)) -> Path:
    """Write a lossless video of one repeated image."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, "bgr0"
        for number in range(STILL_FRAMES):
            frame = av.VideoFrame.from_ndarray(picture(3, *size), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def by_name(output: Path) -> dict[str, dict[str, object]]:
    results = json.loads((output / "event_results.json").read_text())
    return {Path(video["path"]).name: video for video in results["videos"]}


def frame_rows(output: Path) -> list[dict[str, str]]:
    with (output / "event_frames.csv").open(newline="") as file:
        return list(csv.DictReader(file))


class SyntheticVideo:
    """Video of generated frames that ends after `frames` frames, optionally with an error."""

    rate, time_base, missing, pixel_aspect = Fraction(25), Fraction(1, 25), None, 1.0

    def __init__(self, frames: int, error: Exception | None) -> None:
        self.frames, self.error = frames, error

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        number = 0
        while number < self.frames:
            yield number, picture(number, 32, 32)
            number += 1
        if self.error:
            raise self.error

    @property
    def arrived(self) -> float:
        return time.perf_counter()

    def close(self) -> None:
        self.frames = 0


def synthetic_sources(*videos: tuple[int, Exception | None]) -> Sources:
    records = [Record(index, Path(f"v{index}"), f"v{index}", -1) for index in range(len(videos))]
    return Sources([Source(r, lambda v=v: SyntheticVideo(*v)) for r, v in zip(records, videos, strict=True)], [])


def video_run(tmp_path: Path, sources: Sources, *change: object) -> VideoRun:
    cfg = load_config(EMPTY, [*on_videos(tmp_path, tmp_path), *change])
    return VideoRun(cfg, CPU, sources)


def live_sources(*videos: OpenVideo) -> Sources:
    records = [Record(index, Path(f"v{index}"), f"v{index}", -1) for index in range(len(videos))]
    return Sources([Source(r, lambda v=v: v, live=True) for r, v in zip(records, videos, strict=True)], [])
