"""The registry of datasets, and datasets and loaders out of a config."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import TestVideos, TrainClips
from slowfast.datasets.decode import VideoReader, open_video
from slowfast.datasets.index.kinetics import read_class_names, read_kinetics_index
from slowfast.datasets.loader import TestLoader, TrainLoader
from slowfast.datasets.order import EpochBatches, batch_parts
from slowfast.datasets.temporal import SpanSampling, TemporalSampling
from slowfast.datasets.transforms import TrainTransform, ViewTransform
from slowfast.datasets.types import Record
from slowfast.errors import ConfigError, DataError
from slowfast.runtime.distributed import World

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)


@dataclass(frozen=True)
class DatasetSpec:
    """What tells one dataset from another; everything else is shared."""

    read_index: Callable[[ConfigNode, str], list[Record]]  # (cfg, split); raises IndexFileError
    read_class_names: Callable[[ConfigNode], list[str] | None]
    open_medium: Callable[[ConfigNode, Record], VideoReader]  # raises DecodeError
    temporal: Callable[[ConfigNode], TemporalSampling]
    view_short_side: Callable[[ConfigNode], int]  # pixels, for a test with one crop


def _kinetics_index(cfg: ConfigNode, split: str) -> list[Record]:
    data = cfg.DATA
    return read_kinetics_index(
        Path(data.PATH_TO_DATA_DIR), split, data.PATH_PREFIX, data.PATH_LABEL_SEPARATOR, cfg.MODEL.NUM_CLASSES
    )


def _kinetics_names(cfg: ConfigNode) -> list[str] | None:
    return read_class_names(Path(cfg.DATA.PATH_TO_DATA_DIR), cfg.MODEL.NUM_CLASSES)


def _open_video(cfg: ConfigNode, record: Record) -> VideoReader:
    return open_video(record.path, cfg.DATA.DECODING_BACKEND, cfg.DATA.DECODING_THREADS)


def _jitter_short_side(cfg: ConfigNode) -> int:
    return int(cfg.DATA.TRAIN_JITTER_SCALES[0])


KINETICS = DatasetSpec(_kinetics_index, _kinetics_names, _open_video, SpanSampling.from_config, _jitter_short_side)

DATASETS: dict[str, DatasetSpec] = {"kinetics": KINETICS}


def dataset_name(cfg: ConfigNode, split: str) -> str:
    """The configured dataset of a split: validation goes with training."""
    name: str = cfg.TEST.DATASET if split == TEST else cfg.TRAIN.DATASET
    return name


def dataset_spec(cfg: ConfigNode, split: str) -> DatasetSpec:
    """The registered dataset of a split; ConfigError for an unknown one."""
    name = dataset_name(cfg, split)
    if name not in DATASETS:
        key = "TEST.DATASET" if split == TEST else "TRAIN.DATASET"
        raise ConfigError(f"{key} {name!r} is not a dataset; there are: {', '.join(sorted(DATASETS))}")
    return DATASETS[name]


def class_names(cfg: ConfigNode, split: str) -> list[str]:
    """Names of the MODEL.NUM_CLASSES classes; their numbers where the dataset has no names."""
    names = dataset_spec(cfg, split).read_class_names(cfg)
    return names if names is not None else [str(label) for label in range(cfg.MODEL.NUM_CLASSES)]


def build_dataset(cfg: ConfigNode, split: str) -> TrainClips | TestVideos:
    """The dataset of a split: train gives augmented clips, val one centre view a video, test all views.

    Raises IndexFileError for a missing or broken index file, ConfigError for an unknown split or dataset.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is none of {', '.join(SPLITS)}")
    return train_dataset(cfg) if split == TRAIN else views_dataset(cfg, split)


def train_dataset(cfg: ConfigNode) -> TrainClips:
    """The augmented clips of the training split."""
    spec = dataset_spec(cfg, TRAIN)
    return TrainClips(
        spec.read_index(cfg, TRAIN),
        functools.partial(spec.open_medium, cfg),
        spec.temporal(cfg),
        TrainTransform.from_config(cfg),
        samples=cfg.AUG.NUM_SAMPLE,
        seed=cfg.RNG_SEED,
        max_failed=cfg.DATA.MAX_FAILED,
    )


def views_dataset(cfg: ConfigNode, split: str) -> TestVideos:
    """The views of the validation split (one at the centre) or of the test split (all)."""
    spec = dataset_spec(cfg, split)
    testing = split == TEST
    views, crops = (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS) if testing else (1, 1)
    short_side = spec.view_short_side(cfg) if crops == 1 else cfg.DATA.TEST_CROP_SIZE
    return TestVideos(
        spec.read_index(cfg, split),
        functools.partial(spec.open_medium, cfg),
        spec.temporal(cfg),
        ViewTransform.from_config(cfg, short_side=short_side, crops=crops),
        views=views,
        order=cfg.TEST.FRAME_ORDER if testing else "normal",
        seed=cfg.RNG_SEED,
    )


def build_loader(cfg: ConfigNode, split: str, world: World | None = None) -> TrainLoader | TestLoader:
    """The loader of this process's part of a split.

    Raises what `build_dataset` raises, and DataError when there are fewer training videos than TRAIN.BATCH_SIZE.
    """
    world = world or World()
    dataset = build_dataset(cfg, split)
    return views_loader(cfg, world, dataset) if isinstance(dataset, TestVideos) else train_loader(cfg, world, dataset)


def train_loader(cfg: ConfigNode, world: World, dataset: TrainClips) -> TrainLoader:
    """The training batches' parts that are this process's."""
    return TrainLoader(dataset, train_batches(cfg, world, dataset), *_loading(cfg, world))


def views_loader(cfg: ConfigNode, world: World, dataset: TestVideos) -> TestLoader:
    """The videos that are this process's."""
    return TestLoader(dataset, world.rank, world.size, *_loading(cfg, world))


def _loading(cfg: ConfigNode, world: World) -> tuple[int, float, int, bool]:
    loading = cfg.DATA_LOADER
    pin = loading.PIN_MEMORY and world.device.type == "cuda"
    return loading.NUM_WORKERS, loading.TIMEOUT, loading.PREFETCH_FACTOR, pin


def process_parts(cfg: ConfigNode, world: World) -> list[list[int]]:
    """This process's places in a training batch, one list an accumulation step."""
    steps = cfg.TRAIN.ACCUMULATION_STEPS
    parts = batch_parts(cfg.TRAIN.BATCH_SIZE, world.size * steps)
    return parts[world.rank * steps : (world.rank + 1) * steps]


def train_batches(cfg: ConfigNode, world: World, dataset: TrainClips) -> EpochBatches:
    """The batches of this process; DataError when the training set is smaller than one batch."""
    if len(dataset) < cfg.TRAIN.BATCH_SIZE:
        raise DataError(
            f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} is more than the {len(dataset)} videos of the training index; "
            f"set TRAIN.BATCH_SIZE to {len(dataset)} or less"
        )
    return EpochBatches(len(dataset), cfg.TRAIN.BATCH_SIZE, process_parts(cfg, world))
