"""Analysis of an uploaded file: best classes, Grad-CAM and, for evMLP, the patches that change.

Notation: K frames, T frames of a clip, S side of the network's input, C classes.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, eval_loader, find_dataset, views_of_records
from slowfast.datasets.index.samples import IMAGE, RECORDING, VIDEO, FoundSamples, SampleKind, find_samples
from slowfast.datasets.types import EvalVideo, Record
from slowfast.engine.forward import ClipForward
from slowfast.engine.state import tested_weights
from slowfast.engine.test import class_names_of, network_to_test
from slowfast.errors import ConfigError, DataError, UserError
from slowfast.event_driven.activity import Savings, Summary, VideoActivity, summarize
from slowfast.event_driven.engine import EventDrivenInference
from slowfast.event_driven.feed import Batch, Closed, Feed, Opened
from slowfast.event_driven.run_outputs import AnnotatedVideos
from slowfast.event_driven.sources import find_files
from slowfast.event_driven.video_frames import FrameResize
from slowfast.inference.heat_maps import HeatMaps, write_heat_map
from slowfast.inference.predictor import Predictor
from slowfast.models.evmlp import EvMLP
from slowfast.models.framewise import FramewiseVideo
from slowfast.models.protocol import IMAGES, Network
from slowfast.utils.distributed import World, init_distributed

SLOWEST, FASTEST = 2.0, 30.0  # frames/s of the heat map video
# Frames of a video for an image network: 16 frames over 4.3 seconds.
FRAMES, RATE = 16, 8
MAX_FRAMES = 300  # frames processed per video, unless EVENT.MAX_FRAMES is smaller


class AnalysisStopped(Exception):
    """Raised to end an analysis because the server stops."""


@dataclass(frozen=True)
class Analysis:
    """Result for one file.

    Attributes:
        best: Names and scores of the best classes, best first.
        heat_map: Video or image file with the frames beside their Grad-CAM heat map; None if there is none.
        heat_title: Class of the heat map and its method, or the reason why there is none.
        damage: What could not be read of the file; "" if it is intact.
        patches: Video in which the changed patches are outlined; None for networks other than evMLP and for images.
        activity: Computation that event-driven inference saved on it.
    """

    best: list[tuple[str, float]]
    heat_map: Path | None
    heat_title: str
    damage: str = ""
    patches: Path | None = None
    activity: Summary | None = None


@dataclass(frozen=True)
class _Reader:
    """Prediction and heat maps of one kind of files."""

    cfg: ConfigNode
    predictor: Predictor
    maps: HeatMaps | None
    no_maps: str = ""  # reason why there are none


@dataclass
class FileAnalyzer:
    """Analysis of videos and images with one trained model.

    Attributes:
        name: Name of the network.
        weights: Path of its checkpoint; None for random weights.
        class_names: Names of the classes.
        readers: Prediction and heat maps by kind of file: ``VIDEO``, ``IMAGE`` or both.
        device: Device of the model.
        changed: Event-driven inference; None for networks other than evMLP.
        stop: Set to end a running analysis.
    """

    name: str
    weights: str | None
    class_names: Sequence[str]
    readers: Mapping[str, _Reader]
    device: torch.device
    changed: ChangedPatches | None
    stop: threading.Event = field(default_factory=threading.Event)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> FileAnalyzer:
        """Build the model and load its weights. An image network classifies videos too, frame by frame.

        Raises:
            UserError: If weights are missing, or the model takes event recordings.
        """
        if SampleKind.from_config(cfg).kind == RECORDING:
            raise ConfigError(
                f"slowfast demo takes videos and images, but TEST.DATASET {cfg.TEST.DATASET} reads event recordings. "
                "Use slowfast predict"
            )
        world = init_distributed(cfg.NUM_GPUS)
        model = network_to_test(cfg, world.device)
        names = class_names_of(cfg, model)
        takes_images = find_dataset(cfg, TEST).input_kind == IMAGES
        readers = {IMAGE if takes_images else VIDEO: _reader(cfg, model, names, world)}
        if takes_images:
            readers[VIDEO] = _reader(frame_by_frame(cfg), FramewiseVideo(model), names, world)
        image_model = model.image if isinstance(model, FramewiseVideo) else model
        changed = ChangedPatches(cfg, image_model, names, world.device) if isinstance(image_model, EvMLP) else None
        analyzer = cls(cfg.MODEL.MODEL_NAME, tested_weights(cfg), names, readers, world.device, changed)
        model.register_forward_pre_hook(lambda *_: analyzer.check_stop())
        return analyzer

    def check_stop(self) -> None:
        """Raise AnalysisStopped if the server stops."""
        if self.stop.is_set():
            raise AnalysisStopped

    def __call__(self, path: Path, name: str, folder: Path, threshold: float | None = None) -> Analysis:
        """Analyze a file.

        Args:
            path: The file.
            name: Its name in messages.
            folder: Existing folder for the resulting files.
            threshold: Threshold of event-driven inference; None for EVENT.THRESHOLD.

        Raises:
            UserError: If the file cannot be read.
            AnalysisStopped: If `stop` was set.
        """
        with self._one_at_a_time:
            return self._analyze(path, name, folder, threshold)

    def ended(self, seconds: float) -> bool:
        """Wait for the end of a running analysis; return whether none is running."""
        if self._one_at_a_time.acquire(timeout=seconds):
            self._one_at_a_time.release()
            return True
        return False

    def _analyze(self, path: Path, name: str, folder: Path, threshold: float | None) -> Analysis:
        self.check_stop()
        own = next(iter(self.readers.values()))
        reader = self.readers.get(own.predictor.wanted.kind_of(path) or "", own)
        found = _named(find_samples([path], reader.predictor.wanted), name)
        prediction = reader.predictor.predict_found(found)[0]
        self.check_stop()
        output = Path(tempfile.mkdtemp(dir=folder))
        label = prediction.best_classes(1)[0][0]
        heat_map, title = self._draw_heat_map(reader, prediction.record, label, output / "grad_cam")
        result = Analysis(prediction.best(), heat_map, title, prediction.failure)
        if self.changed is None or reader.predictor.wanted.images:
            return result
        patches = output / "changed_patches.mp4"
        activity = self.changed.run(path, name, patches, self.stop.is_set, threshold)
        self.check_stop()
        return replace(result, patches=patches, activity=activity)

    def _draw_heat_map(self, reader: _Reader, record: Record, label: int, target: Path) -> tuple[Path | None, str]:
        """Return the file of the heat map (None if there is none), and the text below it."""
        if reader.maps is None:
            return None, reader.no_maps
        dataset = views_of_records(reader.cfg, TEST, [record], all_views=False)
        with eval_loader(reader.cfg, World(device=self.device), dataset) as loader:
            video = next(iter(loader))
        assert isinstance(video, EvalVideo)  # checked in `from_config`
        if video.frames is None:
            return None, f"No heat map: {video.failures[0].reason}"
        try:
            explained = reader.maps.explain(video, label)
        except UserError as error:  # constant
            return None, f"No heat map: {error}"
        return write_heat_map(explained, _frame_rate(reader.cfg), target), f"{explained.title}. {explained.note}"


def frame_by_frame(cfg: ConfigNode) -> ConfigNode:
    """Return the config with which an image network classifies the center of a video, frame by frame.

    Args:
        cfg: Config of the image network.
    """
    copy = cfg.clone()
    copy.defrost()
    short_side = math.floor(cfg.DATA.TEST_CROP_SIZE / cfg.DATA.IN_VAL_CROP_RATIO)
    copy.merge_from_list(
        [
            *("MODEL.FRAMEWISE", "logits", "TEST.DATASET", "kinetics"),
            *("DATA.NUM_FRAMES", FRAMES, "DATA.SAMPLING_RATE", RATE, "DATA.TARGET_FPS", 30),
            *("TEST.NUM_ENSEMBLE_VIEWS", 1, "TEST.NUM_SPATIAL_CROPS", 1),
            *("DATA.TRAIN_JITTER_SCALES", [short_side, short_side]),
        ]
    )
    copy.freeze()
    return copy


def _reader(cfg: ConfigNode, model: Network, names: Sequence[str], world: World) -> _Reader:
    predictor = Predictor.of_model(cfg, model, names, world)
    try:
        return _Reader(cfg, predictor, HeatMaps.of_model(cfg, model, names, world.device))
    except UserError as error:
        return _Reader(cfg, predictor, None, f"No heat map: {error}")


def _named(found: FoundSamples, name: str) -> FoundSamples:
    """Return the only sample found, under another name. Raises DataError if it has the wrong kind."""
    if found.refused:
        raise DataError(f"{name}: {found.refused[0].reason}")
    return FoundSamples([replace(found.records[0], name=name)])


def _frame_rate(cfg: ConfigNode) -> Fraction:
    """Return the frame rate at which a clip plays in real time, within limits."""
    rate = cfg.DATA.TARGET_FPS / cfg.DATA.SAMPLING_RATE
    return Fraction(min(max(rate, SLOWEST), FASTEST)).limit_denominator(1000)


class ChangedPatches:
    """Event-driven inference on video files, with the computed patches outlined.

    Args:
        cfg: Config with the EVENT settings.
        model: evMLP with its weights.
        names: Class names.
        device: Device of the model.

    Attributes:
        limit: Largest number of frames that are processed.
    """

    def __init__(self, cfg: ConfigNode, model: nn.Module, names: Sequence[str], device: torch.device) -> None:
        self.cfg, self.model, self.names = cfg, model, names
        self.limit = min(cfg.EVENT.MAX_FRAMES or MAX_FRAMES, MAX_FRAMES)
        self._resize = FrameResize.from_config(cfg)
        self._forward = replace(ClipForward.from_config(cfg, device, TEST), images=True)

    def run(
        self, path: Path, name: str, target: Path, stopped: Callable[[], bool], threshold: float | None = None
    ) -> Summary:
        """Process the first frames of a video and compare each with dense inference.

        Args:
            path: Video file.
            name: Its name in messages.
            target: Annotated video to write.
            stopped: Returns True to end early.
            threshold: Change threshold; None for EVENT.THRESHOLD.

        Returns:
            The computed and the saved operations.

        Raises:
            DataError: If no frame can be read.
        """
        engine = EventDrivenInference.from_config(self._settings(threshold), self.model)
        source = find_files([path], self.cfg.DATA.DECODING_THREADS).videos[0]
        feed = Feed(
            *(engine, self._resize, self._forward, 1, self.cfg.EVENT.CHUNK, self.limit),
            timeout=self.cfg.DATA_LOADER.TIMEOUT,
        )
        activity, failure = VideoActivity(name, Savings.of(engine.network)), ""
        with AnnotatedVideos({source.record.index: target}, engine.network, self.names) as annotated:
            for message in feed.messages([source], stopped):
                if isinstance(message, Opened):
                    annotated.begin(message.source.record, message.rate, message.time_base)
                elif isinstance(message, Batch):
                    self._compute(engine, message, activity, annotated)
                elif isinstance(message, Closed) and message.failure is not None:
                    failure = message.failure.reason
        if not activity.frames:
            raise DataError(f"{name}: {failure or 'no frame can be decoded'}")
        return summarize([activity])

    def _settings(self, threshold: float | None) -> ConfigNode:
        if threshold is None:
            return self.cfg
        copy = self.cfg.clone()
        copy.defrost()
        copy.merge_from_list(["EVENT.THRESHOLD", threshold])
        return copy

    @torch.inference_mode()
    def _compute(
        self, engine: EventDrivenInference, batch: Batch, activity: VideoActivity, annotated: AnnotatedVideos
    ) -> None:
        results = engine.compute(batch.changes)
        dense = engine.run_dense(batch.frames.flatten(0, 1))
        mask = batch.changes.mask[:, 0]
        activity.add(results.active[:, 0], results.macs[:, 0], mask, results.logits[:, 0], dense)
        annotated.write(batch, results.logits)
