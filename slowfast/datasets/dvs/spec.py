"""Event data sets for the registry: how a config makes datasets of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.config.node import ConfigNode
from slowfast.datasets.dvs.dataset import NORMAL, EventSampling, TestRecordings, TrainRecordings
from slowfast.datasets.dvs.index import read_event_class_names, read_event_index
from slowfast.datasets.dvs.longest import longest_recording
from slowfast.datasets.dvs.normalize_time import DATASET
from slowfast.datasets.dvs.sample import get_sampler
from slowfast.datasets.dvs.transforms import EventAugment
from slowfast.datasets.order import BALANCED
from slowfast.datasets.types import Record
from slowfast.errors import ConfigError
from slowfast.models.inputs import EVENTS


@dataclass(frozen=True)
class EventSpec:
    """Recordings of events in class folders; the sensor and its files' times are the config's."""

    images: bool = False
    frame_folders: bool = False
    recordings: bool = True
    gives: str = EVENTS

    def read_index(self, cfg: ConfigNode, split: str) -> list[Record]:
        """The recordings of a split; raises IndexFileError."""
        return read_event_index(Path(cfg.DATA.PATH_TO_DATA_DIR), split, cfg.MODEL.NUM_CLASSES, cfg.DVS.CLASS_ORDER)

    def read_class_names(self, cfg: ConfigNode) -> list[str] | None:
        """The class folders' names."""
        return read_event_class_names(Path(cfg.DATA.PATH_TO_DATA_DIR), cfg.MODEL.NUM_CLASSES, cfg.DVS.CLASS_ORDER)

    def train(self, cfg: ConfigNode) -> TrainRecordings:
        """The augmented samples of the training split."""
        records = self.read_index(cfg, "train")
        return TrainRecordings(
            records,
            self._sampling(cfg, records),
            EventAugment.from_config(cfg) if cfg.AUG.ENABLE else None,
            samples=cfg.AUG.NUM_SAMPLE,
            seed=cfg.RNG_SEED,
            max_failed=cfg.DATA.MAX_FAILED,
            balanced=cfg.DATA.SAMPLING == BALANCED,
            repeated=cfg.AUG.REPEATED,
        )

    def views(self, cfg: ConfigNode, records: Sequence[Record], all_views: bool) -> TestRecordings:
        """TEST.NUM_ENSEMBLE_VIEWS samples of each recording, or one."""
        return TestRecordings(
            records,
            self._sampling(cfg, None),
            samples=cfg.TEST.NUM_ENSEMBLE_VIEWS if all_views else 1,
            order=cfg.TEST.FRAME_ORDER if all_views else NORMAL,
            seed=cfg.RNG_SEED,
        )

    def check(self, cfg: ConfigNode, training: bool) -> None:
        """Raise ConfigError for settings that are impossible for events, without a recording being read."""
        get_sampler(cfg.DVS.SAMPLER)
        if cfg.DVS.SCALE[0] > cfg.DVS.SCALE[1]:
            raise ConfigError(f"DVS.SCALE {cfg.DVS.SCALE}: the smallest factor comes first")
        for key, on in (("MIXUP", training and cfg.MIXUP.ENABLE), ("DISTILL", training and cfg.DISTILL.ENABLE)):
            if on:
                raise ConfigError(f"{key}.ENABLE is for frames, but TRAIN.DATASET {cfg.TRAIN.DATASET} gives events")
        if not training and cfg.TEST.NUM_SPATIAL_CROPS != 1:
            raise ConfigError(
                f"TEST.NUM_SPATIAL_CROPS {cfg.TEST.NUM_SPATIAL_CROPS}: events are not cropped; set it to 1"
            )

    def _sampling(self, cfg: ConfigNode, train: Sequence[Record] | None) -> EventSampling:
        """`train`: the training recordings, where they were read already."""
        longest = float(cfg.DVS.LONGEST)
        if cfg.DVS.TIME_NORM == DATASET and not longest:
            records = self.read_index(cfg, "train") if train is None else train
            longest = longest_recording(records, tuple(cfg.DVS.SENSOR_SIZE), cfg.DVS.TIME_UNIT, cfg.DATA_LOADER.TIMEOUT)
        return EventSampling.from_config(cfg, longest)
