"""The test pipeline against plain decoding: all views of a video, and one pass over the same file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from slowfast.benchmark.figures import Figure
from slowfast.benchmark.timing import time_interleaved
from slowfast.benchmark.videos import changed
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, build_dataset
from slowfast.datasets.clip_dataset import TestVideos
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.sampling import scaled_size
from slowfast.datasets.types import Record
from slowfast.errors import DataError

VIEWS = ((4, 1), (10, 3))  # temporal views, spatial crops
CPU = torch.device("cpu")


def measure_testing(cfg: ConfigNode, runs: int, views: Sequence[tuple[int, int]] = VIEWS) -> list[Figure]:
    """Seconds a video with each number of views and crops; to be called in a process of its own.

    Raises DataError where a video cannot be read.
    """
    figures = []
    for temporal, crops in views:
        dataset = build_dataset(
            changed(cfg, "TEST.NUM_ENSEMBLE_VIEWS", temporal, "TEST.NUM_SPATIAL_CROPS", crops), TEST
        )
        assert isinstance(dataset, TestVideos)
        figures += _compare(dataset, f"test, {temporal}x{crops} views", runs)
    return figures


def _compare(dataset: TestVideos, group: str, runs: int) -> list[Figure]:
    wanted = [_wanted_frames(dataset, record) for record in dataset.records]
    short_side = dataset.transform.short_side

    def all_views() -> None:
        for place in range(len(dataset)):
            read_views(dataset, place)

    def plain() -> None:
        for record, frames in zip(dataset.records, wanted, strict=True):
            decode_once(record.path, frames, short_side)

    timings = time_interleaved({"views": all_views, "plain": plain}, runs, CPU)
    count = len(dataset)
    return [
        Figure(group, "all views", timings.median("views") / count, "s a video", runs),
        Figure(group, "decoding once + resizing", timings.median("plain") / count, "s a video", runs),
        Figure(group, "ratio to decoding once + resizing", timings.ratio("views", "plain"), "x", runs),
        Figure(group, "frames resized", float(np.mean([len(frames) for frames in wanted])), "a video", 1),
    ]


def read_views(dataset: TestVideos, place: int) -> int:
    """Read a video and cut out its clips one after another, as the evaluation does; how many there are."""
    video = dataset[place]
    for failure in video.failures:
        raise DataError(f"--videos: {failure.name} cannot be read whole: {failure.reason}")
    return sum(1 for _ in video.clips(CPU))


def decode_once(path: Path, wanted: set[int], short_side: int) -> list[np.ndarray]:
    """Plain decoding of a whole file by one thread; its wanted frames as R G B, scaled to the short side."""
    convert = VideoReformatter()
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(stream)):
            if number in wanted:
                image = convert.reformat(frame, format="rgb24", threads=1).to_ndarray()
                height, width = scaled_size(image.shape[0], image.shape[1], short_side)
                frames.append(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
    return frames


def _wanted_frames(dataset: TestVideos, record: Record) -> set[int]:
    try:
        with dataset.open_medium(record) as reader:
            views = dataset.temporal.views(reader.num_frames, reader.fps, dataset.views)
    except DecodeError as error:
        raise DataError(f"--videos: {record.name} cannot be read: {error}") from error
    return set(views.ravel().tolist())
