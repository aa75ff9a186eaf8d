"""Classification of windows of event streams.

Notation: n events of a window, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.base import FrameDataset
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.dvs.dataset import EventSampling, RecordingEvalDataset
from slowfast.datasets.dvs.event_windows import EventWindow
from slowfast.datasets.dvs.frames import event_frames, frame_colors
from slowfast.datasets.dvs.recording import as_events
from slowfast.datasets.dvs.sample import EventColumns, choose, get_sampler
from slowfast.datasets.index.samples import UNLABELED
from slowfast.datasets.loader import stack_clips, to_tensors
from slowfast.datasets.sampling import VIEW, generator
from slowfast.datasets.types import EvalRecording, EvalSample, Record
from slowfast.engine.forward import ClipForward
from slowfast.errors import ConfigError, UserError
from slowfast.inference.window_reader import ClipSampling

_NO_RECORD = Record(0, Path(), "stream", UNLABELED)


class WindowViews(Protocol):
    """Conversion of windows to views for a network."""

    def __call__(self, record: Record, window: EventWindow) -> EvalSample:
        """Return the views of a window of a source, which has at least one event."""


class EventViews:
    """Samples of the events of a window, as of a recording in testing; other events are not touched.

    Args:
        dataset: Dataset of the test.
    """

    def __init__(self, dataset: RecordingEvalDataset) -> None:
        self._dataset, self._sampler = dataset, get_sampler(dataset.sampling.sampler)

    def __call__(self, record: Record, window: EventWindow) -> EvalRecording:
        """Return the samples of a window; its number takes the place of the number of a recording."""
        sampling, events, samples = self._dataset.sampling, window.events, list[dict[str, torch.Tensor]]()
        for sample in range(self._dataset.samples):
            seed = (self._dataset.seed, window.number, sample)
            rows = choose(self._sampler, len(events), sampling.events, generator(VIEW, *seed))
            drawn = as_events({key: getattr(events, key)[rows] for key in "xytp"}, sampling.sensor, 1e-6)
            if drawn is None:
                raise DecodeError("the events of a window are outside of the sensor or not in ascending order of time")
            samples.append(to_tensors(self._dataset.reordered(sampling.finish(drawn), seed)))
        return EvalRecording(record, samples, sampling.sensor)


class FrameViews:
    """Frames of the events of a window, as of a recording in testing, but over the whole window.

    Args:
        cfg: Config with the DVS keys of the frames.
        dataset: Dataset of the test.
    """

    def __init__(self, cfg: ConfigNode, dataset: FrameDataset) -> None:
        self._dvs, self._frames = cfg.DVS, cfg.DATA.NUM_FRAMES
        self._sensor = (cfg.DVS.SENSOR_SIZE[0], cfg.DVS.SENSOR_SIZE[1])
        self._sampling = ClipSampling.of_dataset(dataset)

    def __call__(self, record: Record, window: EventWindow) -> EvalSample:
        """Return the views of a window."""
        dvs, span = self._dvs, (window.start, window.end - window.start)
        columns = (getattr(window.events, key).astype(np.int64) for key in "xytp")
        grids = event_frames(EventColumns(*columns), self._sensor, self._frames, dvs.FRAMES, dvs.FRAME_DECAY, span)
        images = frame_colors(grids, dvs.FRAMES, dvs.FRAME_GAIN)
        return self._sampling.sample(record, images, self._sampling.rows(self._frames, 1.0))


def window_views(cfg: ConfigNode, *, by_count: bool) -> WindowViews:
    """Return the conversion of windows to the views of a test of a config.

    Args:
        cfg: Config of the test.
        by_count: Whether windows have a fixed number of events.

    Raises:
        UserError: If the dataset does not read event recordings.
        ConfigError: If settings do not fit live streams.
    """
    dataset = find_dataset(cfg, TEST)
    if not dataset.reads_recordings:
        raise UserError(
            f"Live event streams need a network of events, but TEST.DATASET {cfg.TEST.DATASET} reads videos or images"
        )
    if isinstance(dataset, FrameDataset):
        return FrameViews(cfg, dataset)
    if cfg.DVS.CLUSTERS:
        raise ConfigError("DVS.CLUSTERS: live streams contain events, not clusters. Use a network of single events")
    if not (cfg.DVS.NUM_EVENTS or by_count):
        raise ConfigError(
            "DVS.NUM_EVENTS 0 takes all events of a window, whose number is not limited. Set it, or give --window as a "
            "number of events"
        )
    views = dataset.build_eval([], all_views=True)
    assert isinstance(views, RecordingEvalDataset)
    return EventViews(views)


@dataclass(frozen=True)
class WindowResult:
    """Prediction for one window.

    Attributes:
        logits: Logits, float32 of shape (K,), on the CPU.
        start: Timestamp of the first event in microseconds.
        end: Timestamp of the last event in microseconds.
        events: Number of events.
        seconds: Latency from the complete window to its logits.
    """

    logits: torch.Tensor
    start: float
    end: float
    events: int
    seconds: float


class StreamClassifier:
    """Classifier of windows of events: `for result in classifier(windows_by_time(stream, 50_000)): ...`.

    Args:
        model: Model with its weights, on its device.
        forward: Forward pass from samples to logits.
        sampling: Sampling of events from a window, as from a recording in testing.
        seed: Seed of the sampling.
    """

    def __init__(self, model: nn.Module, forward: ClipForward, sampling: EventSampling, seed: int = 0) -> None:
        self.model, self.forward = model, forward
        forward.prepare_model(model)
        self._views = EventViews(RecordingEvalDataset([], sampling, seed=seed))

    @classmethod
    def from_config(cls, cfg: ConfigNode, model: nn.Module, device: torch.device, longest: float) -> StreamClassifier:
        """Build the classifier of a config.

        Args:
            cfg: Config with the DVS keys of the samples.
            model: Model with its weights.
            device: Device to run on.
            longest: Duration of the longest recording that the model was trained on (DVS.LONGEST), microseconds.
        """
        forward = ClipForward.from_config(cfg, device)
        return cls(model.to(device), forward, EventSampling.from_config(cfg, longest), cfg.RNG_SEED)

    def __call__(self, windows: Iterable[EventColumns]) -> Iterator[WindowResult]:
        """Yield the result of each window as soon as it is computed."""
        for number, events in enumerate(windows):
            start, (first, last) = time.perf_counter(), (float(events.t[0]), float(events.t[-1]))
            logits = self._logits(EventWindow(number, first, last, events))
            yield WindowResult(logits, first, last, len(events), time.perf_counter() - start)

    @torch.inference_mode()
    def _logits(self, window: EventWindow) -> torch.Tensor:
        clips = list(self._views(_NO_RECORD, window).clips(self.forward.device))
        with self.forward.autocast():
            logits: torch.Tensor = self.model(self.forward.prepare(stack_clips(clips)))
        return logits[0].float().cpu()


def stream_metrics(results: Iterable[WindowResult]) -> dict[str, float]:
    """Return the latency per window (median and 99th percentile, ms) and the throughput; 0 for no windows."""
    seen = list(results)
    seconds = np.array([result.seconds for result in seen] or [0.0])
    events = sum(result.events for result in seen)
    return {
        "latency_ms": 1e3 * float(np.median(seconds)),
        "latency_99_ms": 1e3 * float(np.quantile(seconds, 0.99)),
        "events_per_second": events / float(seconds.sum()) if seen else 0.0,
    }
