"""Construction of datasets by the names used in configs, and of their loaders.

Datasets register with ``@DATASET_REGISTRY.register()``; those of the package do so when this module is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slowfast.config.node import ConfigNode
from slowfast.datasets.base import DATASET_REGISTRY, BaseDataset
from slowfast.datasets.clip_dataset import EvalDataset, TrainDataset
from slowfast.datasets.event_cameras import ASLDVS, DVSGesture, DVSLip, EventDataset, EventFrames
from slowfast.datasets.frame_datasets import (
    HMDB51,
    UCF101,
    ImageNet,
    Kinetics,
    SomethingSomething,
    SomethingV1,
    SomethingV2,
)
from slowfast.datasets.loader import EvalLoader, TrainLoader
from slowfast.datasets.sampling import EpochBatches, batch_parts
from slowfast.datasets.types import SPLITS, TEST, TRAIN, VAL, Record
from slowfast.errors import ConfigError, DataError
from slowfast.utils.distributed import World
from slowfast.utils.remote.address import as_address

__all__ = ["DATASET_REGISTRY", "TEST", "TRAIN", "VAL", "build_dataset", "build_loader", "find_dataset"]

# Importing a class registers it.
BUILT_IN = (
    *(Kinetics, UCF101, HMDB51, SomethingSomething, SomethingV1, SomethingV2, ImageNet),
    *(EventDataset, ASLDVS, DVSGesture, DVSLip, EventFrames),
)


def find_dataset(cfg: ConfigNode, split: str) -> BaseDataset:
    """Return the dataset of a split: TRAIN.DATASET for training and validation, TEST.DATASET for testing.

    Raises:
        ConfigError: If no dataset has that name; the message suggests the closest name.
    """
    key, part = ("TEST.DATASET", cfg.TEST) if split == TEST else ("TRAIN.DATASET", cfg.TRAIN)
    return DATASET_REGISTRY.find(part.DATASET, key)(cfg)


def class_names(cfg: ConfigNode, split: str) -> list[str]:
    """Return the names of the MODEL.NUM_CLASSES classes, or their labels if the dataset has no names."""
    names = find_dataset(cfg, split).read_class_names()
    return names if names is not None else [str(label) for label in range(cfg.MODEL.NUM_CLASSES)]


def names_of_classes(cfg: ConfigNode, of_checkpoint: Sequence[str] | None = None) -> list[str]:
    """Return the class names in DATA.PATH_TO_DATA_DIR, else those in the checkpoint, else the labels.

    Args:
        cfg: Config of the run.
        of_checkpoint: Class names in the checkpoint of the model, if it has any.
    """
    names = find_dataset(cfg, TEST).read_class_names() if has_data(cfg) else None
    if names is None and of_checkpoint is not None:
        return list(of_checkpoint)
    return names if names is not None else [str(label) for label in range(cfg.MODEL.NUM_CLASSES)]


def has_data(cfg: ConfigNode) -> bool:
    """Return whether DATA.PATH_TO_DATA_DIR is an existing folder, or an address."""
    folder = cfg.DATA.PATH_TO_DATA_DIR
    return bool(folder) and (bool(as_address(folder)) or Path(folder).is_dir())


def build_dataset(cfg: ConfigNode, split: str) -> TrainDataset | EvalDataset[Any]:
    """Build the dataset of a split.

    Args:
        cfg: Config of the run.
        split: ``train`` for augmented clips, ``val`` for one center view per sample, ``test`` for all views.

    Raises:
        ConfigError: If the split or the dataset is unknown.
        IndexFileError: If an index file is missing or broken.
    """
    if split not in SPLITS:
        raise ConfigError(f"unknown split {split!r}. Choices: {', '.join(SPLITS)}")
    return train_dataset(cfg) if split == TRAIN else eval_dataset(cfg, split)


def train_dataset(cfg: ConfigNode) -> TrainDataset:
    """Build the dataset of augmented training samples."""
    return find_dataset(cfg, TRAIN).build_train()


def eval_dataset(cfg: ConfigNode, split: str) -> EvalDataset[Any]:
    """Build the dataset of the views of the validation split (one at the center) or the test split (all)."""
    dataset = find_dataset(cfg, split)
    return dataset.build_eval(dataset.read_index(split), all_views=split == TEST)


def views_of_records(cfg: ConfigNode, split: str, records: Sequence[Record], *, all_views: bool) -> EvalDataset[Any]:
    """Build the dataset of the views of some samples.

    Args:
        cfg: Config of the run.
        split: Split whose dataset reads the samples.
        records: The samples.
        all_views: Return all views of a test, in TEST.FRAME_ORDER; otherwise one view, the center.

    Raises:
        ConfigError: If the settings do not allow such views.
    """
    return find_dataset(cfg, split).build_eval(records, all_views)


def build_loader(cfg: ConfigNode, split: str, world: World | None = None) -> TrainLoader | EvalLoader:
    """Build the loader of this process's part of a split.

    Args:
        cfg: Config of the run.
        split: ``train``, ``val`` or ``test``.
        world: Processes of the run; one by default.

    Raises:
        ConfigError: If the split or the dataset is unknown.
        IndexFileError: If an index file is missing or broken.
        DataError: If there are fewer training samples than TRAIN.BATCH_SIZE.
    """
    world = world or World()
    dataset = build_dataset(cfg, split)
    return eval_loader(cfg, world, dataset) if isinstance(dataset, EvalDataset) else train_loader(cfg, world, dataset)


def train_loader(cfg: ConfigNode, world: World, dataset: TrainDataset) -> TrainLoader:
    """Build the loader of this process's part of each training batch."""
    return TrainLoader(dataset, train_batches(cfg, world, dataset), *_loading(cfg, world))


def eval_loader(cfg: ConfigNode, world: World, dataset: EvalDataset[Any]) -> EvalLoader:
    """Build the loader of this process's samples of an evaluation dataset."""
    return EvalLoader(dataset, world.rank, world.size, *_loading(cfg, world))


def _loading(cfg: ConfigNode, world: World) -> tuple[int, float, int, bool]:
    loading = cfg.DATA_LOADER
    pin = loading.PIN_MEMORY and world.device.type == "cuda"
    return loading.NUM_WORKERS, loading.TIMEOUT, loading.PREFETCH_FACTOR, pin


def process_parts(cfg: ConfigNode, world: World) -> list[list[int]]:
    """Return this process's positions in a training batch, one list per accumulation step."""
    parts = batch_parts(cfg.TRAIN.BATCH_SIZE, world.size * cfg.TRAIN.ACCUMULATION_STEPS)
    return parts[world.rank :: world.size]


def train_batches(cfg: ConfigNode, world: World, dataset: TrainDataset) -> EpochBatches:
    """Return the training batches of this process.

    Raises:
        DataError: If the training set is smaller than one batch.
    """
    if not len(dataset):
        raise DataError(f"TRAIN.DATASET {cfg.TRAIN.DATASET}: {cfg.DATA.PATH_TO_DATA_DIR} contains no training samples")
    if len(dataset) < cfg.TRAIN.BATCH_SIZE:
        raise DataError(
            f"TRAIN.BATCH_SIZE ({cfg.TRAIN.BATCH_SIZE}) is more than the {len(dataset)} samples of the training index. "
            f"Set it to {len(dataset)} or less"
        )
    return EpochBatches(len(dataset), cfg.TRAIN.BATCH_SIZE, process_parts(cfg, world))
