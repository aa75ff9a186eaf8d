"""Benchmarks of the input pipelines of training and testing in one worker process.

Notation: R runs, K samples (a video and its random draws), P stages of the pipeline.
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

from benchmarks.measure import Measurement, Stopwatch, time_interleaved
from benchmarks.videos import with_overrides
from slowfast.config.node import ConfigNode
from slowfast.config.rules import MAX_SIDE
from slowfast.datasets.build import TEST, TRAIN, build_dataset
from slowfast.datasets.clip_dataset import VideoEvalDataset, VideoTrainDataset
from slowfast.datasets.decode import DecodeError, require_backend
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.frame_datasets import Kinetics
from slowfast.datasets.loader import collate_clips
from slowfast.datasets.resample import scaled_size
from slowfast.datasets.sampling import Key
from slowfast.datasets.transforms import TrainTransform
from slowfast.datasets.types import Record
from slowfast.errors import DataError

# Minimum number of samples per run; all runs draw the same ones.
SAMPLES = 48
OPEN, DECODE, CONVERT, AUGMENT = "opening and scanning", "decoding", "converting to RGB", "augmentation"
CPU_RATE = "clips per second of CPU time"
STAGES = (OPEN, DECODE, CONVERT, AUGMENT)
# Samples per run of 1080p videos, which take several times as long, and the two ways to read them.
LARGE_SAMPLES = 12
LARGE, FULL_SIZE = "load, 1080p file", "load, 1080p file, not scaled while decoding"


@dataclass(frozen=True)
class Loading:
    """Throughput of one worker on a collection of videos.

    Attributes:
        clips_per_second: Clips per second.
        milliseconds: Time per video by stage; "rest" is outside of `STAGES`.
        clips_per_cpu_second: Clips per second of CPU time, without the influence of other processes.
    """

    clips_per_second: float
    milliseconds: dict[str, float]
    clips_per_cpu_second: float


def measure_loading(cfgs: Mapping[str, ConfigNode], runs: int, samples: int = SAMPLES) -> dict[str, Loading]:
    """Measure training on several collections, which take turns; call it in a fresh process.

    Args:
        cfgs: Config of each collection.
        runs: Number of timed runs; the median over runs is averaged over samples.
        samples: Minimum number of samples per run.

    Raises:
        DataError: If a video cannot be read.
    """
    return _measure({name: (cfg, _train_set(cfg)) for name, cfg in cfgs.items()}, runs, samples)


def _measure(
    collections: Mapping[str, tuple[ConfigNode, VideoTrainDataset]], runs: int, samples: int
) -> dict[str, Loading]:
    timed: dict[str, list[np.ndarray]] = {name: [] for name in collections}
    for run in range(runs + 1):
        for name, (cfg, dataset) in collections.items():
            seconds = _time_samples(cfg, dataset, samples)
            if run:  # the first run warms up
                timed[name].append(seconds)
    return {name: _summary(np.stack(timed[name]), dataset.samples) for name, (_, dataset) in collections.items()}


def measure_large_frames(cfg: ConfigNode, runs: int, samples: int = LARGE_SAMPLES) -> list[Measurement]:
    """Measure training on videos whose frames are resized while decoding, and on the same videos in full size.

    Args:
        cfg: Config on a collection of videos with frames larger than DATA.TRAIN_JITTER_SCALES[0].
        runs: Timed runs; both ways take turns.
        samples: Samples per run, at least.

    Raises:
        DataError: If a video cannot be read.
    """
    full_size = _train_set(cfg)
    full_size.open_sample = functools.partial(Kinetics(cfg).open_sample, MAX_SIDE)
    measured = _measure({LARGE: (cfg, _train_set(cfg)), FULL_SIZE: (cfg, full_size)}, runs, samples)
    measurements = [
        measurement for name, loading in measured.items() for measurement in loading_measurements(name, loading, runs)
    ]
    ratios = {
        "ratio to full size": measured[LARGE].clips_per_second / measured[FULL_SIZE].clips_per_second,
        "ratio to full size, CPU time": (
            measured[LARGE].clips_per_cpu_second / measured[FULL_SIZE].clips_per_cpu_second
        ),
    }
    return [*measurements, *(Measurement(LARGE, name, value, "x", runs) for name, value in ratios.items())]


def loading_measurements(group: str, loading: Loading, runs: int) -> list[Measurement]:
    """Return the measurements of a collection."""
    measurements = [Measurement(group, "clips/s", loading.clips_per_second, "clips/s", runs)]
    measurements += [
        Measurement(group, stage, value, "ms/video", runs) for stage, value in loading.milliseconds.items()
    ]
    measurements.append(Measurement(group, CPU_RATE, loading.clips_per_cpu_second, "clips/s", runs))
    return measurements


def _train_set(cfg: ConfigNode) -> VideoTrainDataset:
    dataset = build_dataset(cfg, TRAIN)
    assert isinstance(dataset, VideoTrainDataset)
    return dataset


def _time_samples(cfg: ConfigNode, dataset: VideoTrainDataset, samples: int) -> np.ndarray:
    """Return the seconds of each sample, float64 (K, P + 2): by stage, in total, and of CPU time."""
    epochs = math.ceil(samples / len(dataset))
    keys = [(epoch, place) for epoch in range(epochs) for place in range(len(dataset))]
    return np.array([_time_sample(cfg, dataset, key) for key in keys])


def _time_sample(cfg: ConfigNode, dataset: VideoTrainDataset, key: Key) -> list[float]:
    watch = Stopwatch()
    with _timed_stages(cfg, watch):
        cpu, start = time.process_time(), time.perf_counter()
        batch = collate_clips([dataset[key]])
        spent, cpu = time.perf_counter() - start, time.process_time() - cpu
    for failure in batch.failures:
        raise DataError(f"--videos: {failure.name} cannot be read completely: {failure.reason}")
    return [*(watch.seconds[stage] for stage in STAGES), spent, cpu]


@contextmanager
def _timed_stages(cfg: ConfigNode, watch: Stopwatch) -> Iterator[None]:
    """Time the functions of the pipeline."""
    reader: Any = require_backend(cfg.DATA.DECODING_BACKEND)
    stages = {
        OPEN: (reader, "__init__"),
        DECODE: (reader, "read"),
        CONVERT: (RgbConverter, "__call__"),  # part of `read`, only separate in the pyav backend
        AUGMENT: (TrainTransform, "__call__"),
    }
    with ExitStack() as stack:
        for stage, (owner, method) in stages.items():
            stack.enter_context(mock.patch.object(owner, method, _timed(getattr(owner, method), watch, stage)))
        yield


def _timed(function: Callable[..., Any], watch: Stopwatch, stage: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with watch.measure(stage):
            return function(*args, **kwargs)

    return measured


def _summary(seconds: np.ndarray, clips: int) -> Loading:
    """Summarize seconds (R, K, P + 2) of samples with `clips` clips each."""
    *stages, total, cpu = np.median(seconds, axis=0).mean(axis=0).tolist()
    milliseconds = {stage: 1e3 * value for stage, value in zip(STAGES, stages, strict=True)}
    milliseconds["rest"] = 1e3 * (total - sum(stages))
    return Loading(clips / total, milliseconds, clips / cpu)


VIEWS = ((4, 1), (10, 3))  # temporal views, spatial crops
CPU = torch.device("cpu")


def measure_testing(cfg: ConfigNode, runs: int, views: Sequence[tuple[int, int]] = VIEWS) -> list[Measurement]:
    """Measure testing with several numbers of views and crops; call it in a fresh process.

    Args:
        cfg: Config with a collection of videos.
        runs: Number of timed runs.
        views: Temporal views and spatial crops.

    Raises:
        DataError: If a video cannot be read.
    """
    measurements = []
    for temporal, crops in views:
        dataset = build_dataset(
            with_overrides(cfg, "TEST.NUM_ENSEMBLE_VIEWS", temporal, "TEST.NUM_SPATIAL_CROPS", crops), TEST
        )
        assert isinstance(dataset, VideoEvalDataset)
        measurements += _compare(dataset, f"test, {temporal}x{crops} views", runs)
    return measurements


def _compare(dataset: VideoEvalDataset, group: str, runs: int) -> list[Measurement]:
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
        Measurement(group, "all views", timings.median("views") / count, "s/video", runs),
        Measurement(group, "decoding once + resizing", timings.median("plain") / count, "s/video", runs),
        Measurement(group, "ratio to decoding once + resizing", timings.ratio("views", "plain"), "x", runs),
        Measurement(group, "frames resized", float(np.mean([len(frames) for frames in wanted])), "per video", 1),
    ]


def read_views(dataset: VideoEvalDataset, place: int) -> int:
    """Read a video and its clips one after another, as evaluation does; return the number of clips."""
    video = dataset[place]
    for failure in video.failures:
        raise DataError(f"--videos: {failure.name} cannot be read completely: {failure.reason}")
    return sum(1 for _ in video.clips(CPU))


def decode_once(path: Path, wanted: set[int], short_side: int) -> list[np.ndarray]:
    """Decode a file with one thread and return the wanted frames as RGB, resized to the short side."""
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


def _wanted_frames(dataset: VideoEvalDataset, record: Record) -> set[int]:
    try:
        with dataset.open_sample(record) as reader:
            views = dataset.temporal.views(reader.num_frames, reader.fps, dataset.views)
    except DecodeError as error:
        raise DataError(f"--videos: {record.name} cannot be read: {error}") from error
    return set(views.ravel().tolist())
