"""The training pipeline as one worker process runs it: clips a second, and where the time of a video goes.

R runs, K samples (videos with their draws), P pieces.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from benchmarks.measure import Figure, Stopwatch, time_interleaved
from benchmarks.videos import changed
from slowfast.config.node import ConfigNode
from slowfast.config.rules import MAX_SIDE
from slowfast.datasets.build import TEST, TRAIN, build_dataset
from slowfast.datasets.clip_dataset import TestVideos, TrainClips
from slowfast.datasets.collate import collate_clips
from slowfast.datasets.decode import DecodeError, require_backend
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.kinetics import Kinetics
from slowfast.datasets.order import Key
from slowfast.datasets.sampling import scaled_size
from slowfast.datasets.transforms import TrainTransform
from slowfast.datasets.types import Record
from slowfast.errors import DataError

# Samples of a run, at least; every run draws the same ones, so that runs differ by the machine alone.
SAMPLES = 48
OPEN, DECODE, CONVERT, AUGMENT = "opening and scanning", "decoding", "converting to RGB", "augmentation"
PROCESSOR = "clips a second of processor time"
PIECES = (OPEN, DECODE, CONVERT, AUGMENT)
# Samples of a run from frames of 1080 lines, which take several times as long; and the two ways to read them.
LARGE_SAMPLES = 12
LARGE, FULL_SIZE = "load, 1080p file", "load, 1080p file, not scaled while decoding"


@dataclass(frozen=True)
class Loading:
    """What one worker does with a collection."""

    clips_per_second: float
    milliseconds: dict[str, float]  # a video, by piece; "rest" is what none of PIECES covers
    clips_per_processor_second: float  # what it would be if nothing else ran on the core


def measure_loading(cfgs: Mapping[str, ConfigNode], runs: int, samples: int = SAMPLES) -> dict[str, Loading]:
    """Each collection's figures, the collections taking turns; to be called in a process of its own.

    Medians over runs for each sample, then the mean over samples. Raises DataError where a video cannot be read.
    """
    return _measure({name: (cfg, _train_set(cfg)) for name, cfg in cfgs.items()}, runs, samples)


def _measure(collections: Mapping[str, tuple[ConfigNode, TrainClips]], runs: int, samples: int) -> dict[str, Loading]:
    timed: dict[str, list[np.ndarray]] = {name: [] for name in collections}
    for run in range(runs + 1):
        for name, (cfg, dataset) in collections.items():
            seconds = _time_samples(cfg, dataset, samples)
            if run:  # the first warms up
                timed[name].append(seconds)
    return {name: _summary(np.stack(timed[name]), dataset.samples) for name, (_, dataset) in collections.items()}


def measure_large(cfg: ConfigNode, runs: int, samples: int = LARGE_SAMPLES) -> list[Figure]:
    """Return the figures of videos whose frames are scaled while decoding, and of the same videos read in full size.

    Args:
        cfg: Config on a collection of videos with frames larger than DATA.TRAIN_JITTER_SCALES[0].
        runs: Timed runs; both ways take turns.
        samples: Samples per run, at least.

    Raises:
        DataError: If a video cannot be read.
    """
    full_size = _train_set(cfg)
    full_size.open_medium = functools.partial(Kinetics(cfg).open_sample, MAX_SIDE)
    measured = _measure({LARGE: (cfg, _train_set(cfg)), FULL_SIZE: (cfg, full_size)}, runs, samples)
    figures = [figure for name, loading in measured.items() for figure in loading_figures(name, loading, runs)]
    ratios = {
        "ratio to full size": measured[LARGE].clips_per_second / measured[FULL_SIZE].clips_per_second,
        "ratio to full size, processor time": (
            measured[LARGE].clips_per_processor_second / measured[FULL_SIZE].clips_per_processor_second
        ),
    }
    return [*figures, *(Figure(LARGE, name, value, "x", runs) for name, value in ratios.items())]


def loading_figures(group: str, loading: Loading, runs: int) -> list[Figure]:
    """The figures of a collection."""
    figures = [Figure(group, "clips a second", loading.clips_per_second, "clips/s", runs)]
    figures += [Figure(group, piece, value, "ms a video", runs) for piece, value in loading.milliseconds.items()]
    figures.append(Figure(group, PROCESSOR, loading.clips_per_processor_second, "clips/s", runs))
    return figures


def _train_set(cfg: ConfigNode) -> TrainClips:
    dataset = build_dataset(cfg, TRAIN)
    assert isinstance(dataset, TrainClips)
    return dataset


def _time_samples(cfg: ConfigNode, dataset: TrainClips, samples: int) -> np.ndarray:
    """Seconds of each sample, float64 (K, P + 2): the pieces, all of it, and processor time."""
    epochs = math.ceil(samples / len(dataset))
    keys = [(epoch, place) for epoch in range(epochs) for place in range(len(dataset))]
    return np.array([_time_sample(cfg, dataset, key) for key in keys])


def _time_sample(cfg: ConfigNode, dataset: TrainClips, key: Key) -> list[float]:
    watch = Stopwatch()
    with _timed_pieces(cfg, watch):
        processor, start = time.process_time(), time.perf_counter()
        batch = collate_clips([dataset[key]])
        spent, processor = time.perf_counter() - start, time.process_time() - processor
    for failure in batch.failures:
        raise DataError(f"--videos: {failure.name} cannot be read whole: {failure.reason}")
    return [*(watch.seconds[piece] for piece in PIECES), spent, processor]


@contextmanager
def _timed_pieces(cfg: ConfigNode, watch: Stopwatch) -> Iterator[None]:
    """The pipeline's own functions with a clock around them."""
    reader: Any = require_backend(cfg.DATA.DECODING_BACKEND)
    pieces = {
        OPEN: (reader, "__init__"),
        DECODE: (reader, "read"),
        CONVERT: (RgbConverter, "__call__"),  # a part of `read`; only the pyav backend has it apart
        AUGMENT: (TrainTransform, "__call__"),
    }
    with ExitStack() as stack:
        for piece, (owner, method) in pieces.items():
            stack.enter_context(mock.patch.object(owner, method, _timed(getattr(owner, method), watch, piece)))
        yield


def _timed(function: Callable[..., Any], watch: Stopwatch, piece: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with watch.measure(piece):
            return function(*args, **kwargs)

    return measured


def _summary(seconds: np.ndarray, clips: int) -> Loading:
    """Figures of seconds (R, K, P + 2), `clips` a sample."""
    *pieces, whole, processor = np.median(seconds, axis=0).mean(axis=0).tolist()
    milliseconds = {piece: 1e3 * value for piece, value in zip(PIECES, pieces, strict=True)}
    milliseconds["rest"] = 1e3 * (whole - sum(pieces))
    return Loading(clips / whole, milliseconds, clips / processor)


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
