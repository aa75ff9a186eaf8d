"""The training pipeline as one worker process runs it: clips a second, and where the time of a video goes.

R runs, K samples (videos with their draws), P pieces.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any
from unittest import mock

import numpy as np

from slowfast.benchmark.figures import Figure
from slowfast.benchmark.timing import Stopwatch
from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TRAIN, build_dataset
from slowfast.datasets.clip_dataset import TrainClips
from slowfast.datasets.collate import collate_clips
from slowfast.datasets.decode import require_backend
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.order import Key
from slowfast.datasets.transforms import TrainTransform
from slowfast.errors import DataError

# Samples of a run, at least; every run draws the same ones, so that runs differ by the machine alone.
SAMPLES = 48
OPEN, DECODE, CONVERT, AUGMENT = "opening and scanning", "decoding", "converting to RGB", "augmentation"
PROCESSOR = "clips a second of processor time"
PIECES = (OPEN, DECODE, CONVERT, AUGMENT)


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
    datasets = {name: _train_set(cfg) for name, cfg in cfgs.items()}
    timed: dict[str, list[np.ndarray]] = {name: [] for name in cfgs}
    for run in range(runs + 1):
        for name, cfg in cfgs.items():
            seconds = _time_samples(cfg, datasets[name], samples)
            if run:  # the first warms up
                timed[name].append(seconds)
    clips = {name: dataset.samples for name, dataset in datasets.items()}
    return {name: _summary(np.stack(seconds), clips[name]) for name, seconds in timed.items()}


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
    @wraps(function)
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
