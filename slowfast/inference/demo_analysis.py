"""Analysis of an uploaded file: best classes, Grad-CAM and, for evMLP, the patches that change.

Notation: K frames, T frames of a clip, S side of the network's input, C classes.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import TEST, eval_loader, find_dataset, views_of_records
from slowfast.datasets.index.samples import IMAGE, RECORDING, VIDEO, FoundSamples, SampleKind, find_samples
from slowfast.datasets.types import EvalVideo, Record
from slowfast.engine.state import tested_weights
from slowfast.engine.test import class_names_of, network_to_test
from slowfast.errors import ConfigError, DataError, UserError
from slowfast.event_driven.activity import Summary
from slowfast.inference.changed_patches import ChangedPatches
from slowfast.inference.heat_maps import ExplainedClip, HeatMaps
from slowfast.inference.predictor import Predictor
from slowfast.models.evmlp import EvMLP
from slowfast.models.framewise import FramewiseVideo
from slowfast.models.protocol import IMAGES, Network
from slowfast.utils.distributed import World, init_distributed
from slowfast.visualization.first_batch import save_image
from slowfast.visualization.heat_map import overlay
from slowfast.visualization.video_writer import VideoWriter, pad_to_even

MIN_SIDE = 320  # pixels of a frame in the heat map video, so that it is legible
SLOWEST, FASTEST = 2.0, 30.0  # frames/s of the heat map video
# Frames of a video for an image network: 16 frames over 4.3 seconds.
FRAMES, RATE = 16, 8


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


def write_heat_map(explained: ExplainedClip, rate: Fraction, target: Path) -> Path:
    """Write the frames beside their heat map, as a video or, for a single frame, as an image.

    Args:
        explained: Frames and heat map.
        rate: Frames/s of the video.
        target: File to write, without its suffix.

    Returns:
        The file.
    """
    frames = np.concatenate((explained.frames, overlay(explained.frames, explained.heat)), axis=2)  # T S 2S 3
    zoom = -(-MIN_SIDE // frames.shape[1])
    size = (zoom * frames.shape[2], zoom * frames.shape[1])
    images = (cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in frames)
    if len(frames) == 1:
        path = target.with_suffix(".png")
        save_image(next(images), path)
        return path
    path = target.with_suffix(".mp4")
    with VideoWriter(path, rate, 1 / rate) as out:
        for tick, image in enumerate(images):
            out.write(pad_to_even(image), tick)
    return path
