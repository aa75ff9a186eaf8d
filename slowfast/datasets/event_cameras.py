"""Datasets of event recordings, as events or as frames.

The size of the sensor and the time unit of the files are DVS settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from slowfast.datasets.base import DATASET_REGISTRY, BaseDataset, FrameDataset, warn_once
from slowfast.datasets.decode import VideoReader
from slowfast.datasets.dvs.augment import BatchAugment, EventAugment
from slowfast.datasets.dvs.dataset import (
    AllEventsTrainDataset,
    EventSampling,
    RecordingEvalDataset,
    RecordingTrainDataset,
)
from slowfast.datasets.dvs.frames import EventFramesReader, EveryFrame
from slowfast.datasets.dvs.index import has_lists, read_event_class_names, read_event_index, read_event_lists
from slowfast.datasets.dvs.measure import event_counts, longest_recording
from slowfast.datasets.dvs.recording import Opening
from slowfast.datasets.dvs.sample import DATASET, get_sampler
from slowfast.datasets.index.labeled_paths import read_class_names
from slowfast.datasets.sampling import BALANCED, NORMAL, TemporalSampling
from slowfast.datasets.transforms import ViewTransform
from slowfast.datasets.types import TRAIN, Record
from slowfast.errors import ConfigError
from slowfast.models.protocol import EVENTS

BATCH = "batch"
AUGMENTATIONS: dict[str, type[EventAugment] | type[BatchAugment]] = {"sample": EventAugment, BATCH: BatchAugment}
# Augmentations that only exist in the policy "sample", and their neutral values.
_OF_SAMPLES = {"FLIP_Y": False, "FLIP_POLARITY": False, "TIME_JITTER": 0.0, "DROP": 0.0, "NOISE": 0.0}


class RecordingFolders(BaseDataset):
    """Recordings in class folders or lists.

    Attributes:
        has_train_folder: Whether the published split uses the folders train/ and test/ (True) or the first 80 % of
            the files of each class (False); None if either is usual. The files decide; a difference is logged.
    """

    reads_recordings = True
    has_train_folder: ClassVar[bool | None] = None

    def read_index(self, split: str) -> Sequence[Record]:
        root, data = Path(self.cfg.DATA.PATH_TO_DATA_DIR), self.cfg.DATA
        if has_lists(root):
            separator, num_classes = data.PATH_LABEL_SEPARATOR, self.cfg.MODEL.NUM_CLASSES
            return read_event_lists(root, split, data.PATH_PREFIX, separator, num_classes)
        records = read_event_index(root, split, self.cfg.MODEL.NUM_CLASSES, self.cfg.DVS.CLASS_ORDER)
        found = (root / TRAIN).is_dir()
        if self.has_train_folder is not None and found != self.has_train_folder:
            names = {True: "the folders train/ and test/", False: "the first 80 % of the files of each class"}
            warn_once(f"{root}: split by {names[found]}; the published split is by {names[self.has_train_folder]}")
        return records

    def read_class_names(self) -> list[str] | None:
        root = Path(self.cfg.DATA.PATH_TO_DATA_DIR)
        if has_lists(root):
            return read_class_names(root, self.cfg.MODEL.NUM_CLASSES)
        return read_event_class_names(root, self.cfg.MODEL.NUM_CLASSES, self.cfg.DVS.CLASS_ORDER)


@DATASET_REGISTRY.register(name="dvsfolder")
class EventDataset(RecordingFolders):
    """Recordings in class folders as events; any number of classes. Base class of datasets of events."""

    input_kind = EVENTS

    def build_train(self) -> RecordingTrainDataset:
        """Build the dataset of augmented training samples: one of each recording, or all with DVS.ALL_EVENTS."""
        cfg, records = self.cfg, self.read_index(TRAIN)
        sampling = self._sampling(records)
        others: dict[str, Any] = {
            "augment": AUGMENTATIONS[cfg.DVS.AUG_POLICY].from_config(cfg) if cfg.AUG.ENABLE else None,
            "samples": cfg.AUG.NUM_SAMPLE,
            "seed": cfg.RNG_SEED,
            "max_failed": cfg.DATA.MAX_FAILED,
            "balanced": cfg.DATA.SAMPLING == BALANCED,
            "repeated": cfg.AUG.REPEATED,
            "batch_size": cfg.TRAIN.BATCH_SIZE,
        }
        if not cfg.DVS.ALL_EVENTS:
            return RecordingTrainDataset(records, sampling, **others)
        return AllEventsTrainDataset(records, sampling, event_counts(records, Opening.from_config(cfg)), **others)

    def build_eval(self, records: Sequence[Record], all_views: bool) -> RecordingEvalDataset:
        """Build the dataset of TEST.NUM_ENSEMBLE_VIEWS samples of each recording, or of one."""
        cfg = self.cfg
        return RecordingEvalDataset(
            records,
            self._sampling(None),
            samples=cfg.TEST.NUM_ENSEMBLE_VIEWS if all_views else 1,
            order=cfg.TEST.FRAME_ORDER if all_views else NORMAL,
            seed=cfg.RNG_SEED,
        )

    def check(self, training: bool) -> None:
        """Check for settings that are invalid for events; see `BaseDataset.check`."""
        super().check(training)
        cfg = self.cfg
        get_sampler(cfg.DVS.SAMPLER)
        if cfg.DVS.SCALE[0] > cfg.DVS.SCALE[1]:
            raise ConfigError(f"DVS.SCALE ({cfg.DVS.SCALE}): the smaller factor must come first")
        if cfg.DVS.CLUSTERS and cfg.DVS.TIME_NORM == DATASET:
            raise ConfigError("DVS.CLUSTERS: times of clusters are fractions of a recording. Set DVS.TIME_NORM sample")
        if cfg.DVS.ALL_EVENTS and training and (cfg.DVS.CLUSTERS or not cfg.DVS.NUM_EVENTS):
            key, value = ("CLUSTERS", True) if cfg.DVS.CLUSTERS else ("NUM_EVENTS", 0)
            raise ConfigError(
                f"DVS.ALL_EVENTS: with DVS.{key} {value}, each sample contains all of a recording already. Set "
                "DVS.ALL_EVENTS False"
            )
        if cfg.DVS.CLUSTERS and training and cfg.AUG.ENABLE and cfg.DVS.AUG_POLICY != BATCH:
            raise ConfigError("DVS.CLUSTERS: clusters are augmented by DVS.AUG_POLICY batch only. Set it to batch")
        if training and cfg.AUG.ENABLE and cfg.DVS.AUG_POLICY != BATCH and any(cfg.DVS.WARP_CHUNKS):
            raise ConfigError(
                f"DVS.WARP_CHUNKS ({cfg.DVS.WARP_CHUNKS}) is an augmentation of DVS.AUG_POLICY batch only. Set it to "
                "[0, 0], or DVS.AUG_POLICY batch"
            )
        if training and cfg.AUG.ENABLE and cfg.DVS.AUG_POLICY == BATCH:
            for key, off in _OF_SAMPLES.items():
                if cfg.DVS[key] != off:
                    raise ConfigError(
                        f"DVS.{key} ({cfg.DVS[key]}) is not an augmentation of DVS.AUG_POLICY batch. Set it to {off}, "
                        "or DVS.AUG_POLICY sample"
                    )
        for key, enabled in (("MIXUP", training and cfg.MIXUP.ENABLE), ("DISTILL", training and cfg.DISTILL.ENABLE)):
            if enabled:
                raise ConfigError(
                    f"{key}.ENABLE is for frames, but TRAIN.DATASET {cfg.TRAIN.DATASET} contains events. Set it False"
                )
        if not training and cfg.TEST.NUM_SPATIAL_CROPS != 1:
            raise ConfigError(
                f"TEST.NUM_SPATIAL_CROPS ({cfg.TEST.NUM_SPATIAL_CROPS}): events are not cropped. Set it to 1"
            )

    def _sampling(self, train: Sequence[Record] | None) -> EventSampling:
        """Return the sampling of events; `train` are the training recordings if they have already been read."""
        cfg = self.cfg
        longest = float(cfg.DVS.LONGEST)
        if cfg.DVS.TIME_NORM == DATASET and not longest:
            records = self.read_index(TRAIN) if train is None else train
            longest = longest_recording(records, Opening.from_config(cfg))
        return EventSampling.from_config(cfg, longest)


@DATASET_REGISTRY.register(name="asldvs")
class ASLDVS(EventDataset):
    """ASL-DVS: letters of American Sign Language, 240 x 180 pixels."""

    num_classes = 24
    has_train_folder = False


@DATASET_REGISTRY.register(name="dvsgesture")
class DVSGesture(EventDataset):
    """DVS Gesture: hand and arm gestures, 128 x 128 pixels."""

    num_classes = 11
    has_train_folder = True


@DATASET_REGISTRY.register(name="dvslip")
class DVSLip(EventDataset):
    """DVS-Lip: spoken words, 128 x 128 pixels."""

    num_classes = 100
    has_train_folder = True


@DATASET_REGISTRY.register(name="dvsframes")
class EventFrames(RecordingFolders, FrameDataset):
    """Recordings in class folders as clips of frames, for networks of videos."""

    single_view = True
    _needs_suffix = True

    def open_sample(self, short_side: int, record: Record) -> VideoReader:
        """Open a recording as frames, at the size of the sensor."""
        dvs, frames = self.cfg.DVS, self.cfg.DATA.NUM_FRAMES
        sensor = (dvs.SENSOR_SIZE[0], dvs.SENSOR_SIZE[1])
        return EventFramesReader(
            record.path, sensor, dvs.TIME_UNIT, frames, dvs.FRAMES, dvs.FRAME_GAIN, dvs.FRAME_DECAY, dvs.STREAM
        )

    def temporal_sampling(self) -> TemporalSampling:
        """Return the temporal sampling of a clip, which takes all frames."""
        return EveryFrame(self.cfg.DATA.NUM_FRAMES)

    def view_transform(self, crops: int) -> ViewTransform:
        """Return the transform of an evaluation view: short side DATA.TEST_CROP_SIZE."""
        size = self.cfg.DATA.TEST_CROP_SIZE
        return ViewTransform(size, size, crops, single=self.cfg.TEST.SINGLE_CROP)
