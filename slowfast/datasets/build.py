"""The registry of datasets, and datasets and loaders out of a config."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import TestMedia, TestVideos, TrainClips, TrainMedia
from slowfast.datasets.decode import VideoReader, open_video
from slowfast.datasets.decode.image import FrameFolderReader, ImageReader
from slowfast.datasets.dvs.dataset import EventSpec
from slowfast.datasets.dvs.frames import EventFramesReader, EveryFrame
from slowfast.datasets.index.imagenet import read_image_class_names, read_imagenet_index
from slowfast.datasets.index.kinetics import read_class_names, read_kinetics_index
from slowfast.datasets.index.labels import label_format
from slowfast.datasets.index.something import is_official, official_class_names, read_something_index
from slowfast.datasets.loader import TestLoader, TrainLoader
from slowfast.datasets.mixup import Mixup
from slowfast.datasets.order import BALANCED, EpochBatches, batch_parts
from slowfast.datasets.resample import antialiased
from slowfast.datasets.sampling import SegmentSampling, SingleImage, SpanSampling, TemporalSampling
from slowfast.datasets.transforms import TrainTransform, ViewTransform
from slowfast.datasets.types import Record
from slowfast.errors import ConfigError, DataError
from slowfast.models.inputs import CLIPS, IMAGES
from slowfast.utils.distributed import World
from slowfast.utils.logging import get_logger

TRAIN, VAL, TEST = "train", "val", "test"
SPLITS = (TRAIN, VAL, TEST)


@dataclass(frozen=True)
class FrameSpec:
    """What tells one dataset of videos or images from another; everything else is shared."""

    read_index: Callable[[ConfigNode, str], list[Record]]  # (cfg, split); raises IndexFileError
    read_class_names: Callable[[ConfigNode], list[str] | None]
    # (cfg, short side that larger frames of videos are scaled down to, record); raises DecodeError
    open_medium: Callable[[ConfigNode, int, Record], VideoReader]
    temporal: Callable[[ConfigNode], TemporalSampling]
    view_transform: Callable[[ConfigNode, int], ViewTransform]  # (cfg, spatial crops); raises ConfigError
    images: bool = False  # single images: networks get (B, 3, H, W), and there is one temporal view
    frame_folders: bool = False  # a medium may be a folder of frames, named as DATA.IMAGE_TEMPLATE says
    one_view: bool = False  # every temporal view would be the same
    recordings: bool = False  # media are event recordings

    @property
    def gives(self) -> str:
        """What networks get: IMAGES or CLIPS."""
        return IMAGES if self.images else CLIPS

    def train(self, cfg: ConfigNode) -> TrainClips:
        """The augmented clips of the training split."""
        return TrainClips(
            self.read_index(cfg, TRAIN),
            functools.partial(self.open_medium, cfg, cfg.DATA.TRAIN_JITTER_SCALES[0]),
            self.temporal(cfg),
            TrainTransform.from_config(cfg, images=self.images),
            samples=cfg.AUG.NUM_SAMPLE,
            seed=cfg.RNG_SEED,
            max_failed=cfg.DATA.MAX_FAILED,
            balanced=cfg.DATA.SAMPLING == BALANCED,
            repeated=cfg.AUG.REPEATED,
        )

    def views(self, cfg: ConfigNode, records: Sequence[Record], all_views: bool) -> TestVideos:
        """All views of a test (views x crops, in TEST.FRAME_ORDER), or the centre."""
        views, crops = (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS) if all_views else (1, 1)
        transform = self.view_transform(cfg, crops)
        if 2 * transform.crop_size < transform.short_side:
            get_logger().info(
                f"note: a view sees {transform.crop_size} of the {transform.short_side} pixels of a short side, "
                f"as {'DATA.IN_VAL_CROP_RATIO' if self.images else 'DATA.TRAIN_JITTER_SCALES[0]'} says"
            )
        # Never below what the views need: a crop may be larger than the training scale.
        short_side = max(cfg.DATA.TRAIN_JITTER_SCALES[0], transform.short_side)
        return TestVideos(
            records,
            functools.partial(self.open_medium, cfg, short_side),
            self.temporal(cfg),
            transform,
            views=views,
            order=cfg.TEST.FRAME_ORDER if all_views else "normal",
            seed=cfg.RNG_SEED,
        )

    def check(self, cfg: ConfigNode, training: bool) -> None:
        """Raise ConfigError for what the transforms refuse, without a frame being read."""
        if training:
            TrainTransform.from_config(cfg)
            self.view_transform(cfg, 1)
            if cfg.MIXUP.ENABLE:
                Mixup.from_config(cfg)
            return
        self.view_transform(cfg, cfg.TEST.NUM_SPATIAL_CROPS)
        if (self.images or self.one_view) and cfg.TEST.NUM_ENSEMBLE_VIEWS > 1:
            medium = "an image" if self.images else "a recording"
            raise ConfigError(
                f"TEST.NUM_ENSEMBLE_VIEWS {cfg.TEST.NUM_ENSEMBLE_VIEWS}: {medium} of TEST.DATASET {cfg.TEST.DATASET} "
                "has one temporal view; set it to 1"
            )


# ------------------------------------------------------------------ Kinetics
def _kinetics_index(cfg: ConfigNode, split: str) -> list[Record]:
    data = cfg.DATA
    return read_kinetics_index(
        Path(data.PATH_TO_DATA_DIR),
        split,
        data.PATH_PREFIX,
        data.PATH_LABEL_SEPARATOR,
        cfg.MODEL.NUM_CLASSES,
        label_format(cfg),
    )


def _kinetics_names(cfg: ConfigNode) -> list[str] | None:
    return read_class_names(Path(cfg.DATA.PATH_TO_DATA_DIR), cfg.MODEL.NUM_CLASSES)


def _open_video(cfg: ConfigNode, short_side: int, record: Record) -> VideoReader:
    """Open a video whose larger frames are scaled down as by the decoder of the published MorphMLP configs."""
    data, timeout = cfg.DATA, cfg.DATA_LOADER.TIMEOUT or None
    return open_video(record.path, data.DECODING_BACKEND, data.DECODING_THREADS, timeout, short_side)


def _kinetics_views(cfg: ConfigNode, crops: int) -> ViewTransform:
    size = cfg.DATA.TEST_CROP_SIZE
    return ViewTransform(size, cfg.DATA.TRAIN_JITTER_SCALES[0] if crops == 1 else size, crops)


KINETICS = FrameSpec(_kinetics_index, _kinetics_names, _open_video, SpanSampling.from_config, _kinetics_views)


# ------------------------------------------------------------------ Something-Something
def _something_index(cfg: ConfigNode, split: str) -> list[Record]:
    data = cfg.DATA
    folder, template = Path(data.PATH_TO_DATA_DIR), data.LABEL_PATH_TEMPLATE
    return read_something_index(folder, template, split, data.PATH_PREFIX, cfg.MODEL.NUM_CLASSES, data.IMAGE_TEMPLATE)


def _something_names(cfg: ConfigNode) -> list[str] | None:
    folder, template = Path(cfg.DATA.PATH_TO_DATA_DIR), cfg.DATA.LABEL_PATH_TEMPLATE
    if is_official(template):
        return official_class_names(folder, template, cfg.MODEL.NUM_CLASSES)
    return read_class_names(folder, cfg.MODEL.NUM_CLASSES)


def _open_frames_or_video(cfg: ConfigNode, short_side: int, record: Record) -> VideoReader:
    if record.frames is None:
        return _open_video(cfg, short_side, record)
    return FrameFolderReader(record.path, cfg.DATA.IMAGE_TEMPLATE, record.frames, cfg.DATA.TARGET_FPS)


def _something_views(cfg: ConfigNode, crops: int) -> ViewTransform:
    size = cfg.DATA.TEST_CROP_SIZE
    return ViewTransform(size, size, crops, single=cfg.TEST.SINGLE_CROP)


SOMETHING = FrameSpec(
    _something_index,
    _something_names,
    _open_frames_or_video,
    SegmentSampling.from_config,
    _something_views,
    frame_folders=True,
)


# ------------------------------------------------------------------ ImageNet
def _imagenet_index(cfg: ConfigNode, split: str) -> list[Record]:
    data = cfg.DATA
    return read_imagenet_index(
        Path(data.PATH_TO_DATA_DIR),
        split,
        data.PATH_PREFIX,
        data.PATH_LABEL_SEPARATOR,
        cfg.MODEL.NUM_CLASSES,
        label_format(cfg),
    )


def _imagenet_names(cfg: ConfigNode) -> list[str] | None:
    return read_image_class_names(Path(cfg.DATA.PATH_TO_DATA_DIR), cfg.DATA.PATH_PREFIX, cfg.MODEL.NUM_CLASSES)


def _open_image(cfg: ConfigNode, short_side: int, record: Record) -> VideoReader:
    return ImageReader(record.path)


def _imagenet_views(cfg: ConfigNode, crops: int) -> ViewTransform:
    """As published networks were evaluated: short side = crop / ratio, rounded down; a half pixel goes to the even."""
    size = cfg.DATA.TEST_CROP_SIZE
    short_side = math.floor(size / cfg.DATA.IN_VAL_CROP_RATIO) if crops == 1 else size
    return ViewTransform(size, short_side, crops, antialiased(cfg.DATA.IN_VAL_INTERPOLATION), centre=round)


IMAGENET = FrameSpec(
    _imagenet_index, _imagenet_names, _open_image, SingleImage.from_config, _imagenet_views, images=True
)


# ------------------------------------------------------------------ event recordings
EVENTS = EventSpec()


def _open_event_frames(cfg: ConfigNode, short_side: int, record: Record) -> VideoReader:
    dvs, frames = cfg.DVS, cfg.DATA.NUM_FRAMES
    sensor = (dvs.SENSOR_SIZE[0], dvs.SENSOR_SIZE[1])
    return EventFramesReader(record.path, sensor, dvs.TIME_UNIT, frames, dvs.FRAMES, dvs.FRAME_GAIN)


def _all_frames(cfg: ConfigNode) -> TemporalSampling:
    return EveryFrame(cfg.DATA.NUM_FRAMES)


EVENT_FRAMES = FrameSpec(
    EVENTS.read_index,
    EVENTS.read_class_names,
    _open_event_frames,
    _all_frames,
    _something_views,
    one_view=True,
    recordings=True,
)

# sth is ssv1 or ssv2 as DATA.LABEL_PATH_TEMPLATE and DATA.IMAGE_TEMPLATE say; so are they.
DatasetSpec = FrameSpec | EventSpec
DATASETS: dict[str, DatasetSpec] = {
    "kinetics": KINETICS,
    "sth": SOMETHING,
    "ssv1": SOMETHING,
    "ssv2": SOMETHING,
    "imagenet": IMAGENET,
    "asldvs": EVENTS,
    "dvsgesture": EVENTS,
    "dvslip": EVENTS,
    "dvsfolder": EVENTS,  # any other folder of class folders
    "dvsframes": EVENT_FRAMES,  # any of them, as frames
}


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


def names_of_classes(cfg: ConfigNode) -> list[str]:
    """Return the class names that DATA.PATH_TO_DATA_DIR holds, else the numbers of the classes."""
    return class_names(cfg, TEST) if has_data(cfg) else [str(label) for label in range(cfg.MODEL.NUM_CLASSES)]


def has_data(cfg: ConfigNode) -> bool:
    """Return whether DATA.PATH_TO_DATA_DIR is an existing folder."""
    return bool(cfg.DATA.PATH_TO_DATA_DIR) and Path(cfg.DATA.PATH_TO_DATA_DIR).is_dir()


def build_dataset(cfg: ConfigNode, split: str) -> TrainMedia | TestMedia:
    """The dataset of a split: train gives augmented clips, val one centre view a video, test all views.

    Raises IndexFileError for a missing or broken index file, ConfigError for an unknown split or dataset.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is none of {', '.join(SPLITS)}")
    return train_dataset(cfg) if split == TRAIN else views_dataset(cfg, split)


def train_dataset(cfg: ConfigNode) -> TrainMedia:
    """The augmented clips of the training split."""
    return dataset_spec(cfg, TRAIN).train(cfg)


def views_dataset(cfg: ConfigNode, split: str) -> TestMedia:
    """The views of the validation split (one at the centre) or of the test split (all)."""
    return views_of_records(cfg, split, dataset_spec(cfg, split).read_index(cfg, split), all_views=split == TEST)


def views_of_records(cfg: ConfigNode, split: str, records: Sequence[Record], *, all_views: bool) -> TestMedia:
    """The views of some media of a split's dataset: all of a test (views x crops, in TEST.FRAME_ORDER), or the centre.

    Raises ConfigError where no such views can be made.
    """
    return dataset_spec(cfg, split).views(cfg, records, all_views)


def build_loader(cfg: ConfigNode, split: str, world: World | None = None) -> TrainLoader | TestLoader:
    """The loader of this process's part of a split.

    Raises what `build_dataset` raises, and DataError when there are fewer training videos than TRAIN.BATCH_SIZE.
    """
    world = world or World()
    dataset = build_dataset(cfg, split)
    return views_loader(cfg, world, dataset) if isinstance(dataset, TestMedia) else train_loader(cfg, world, dataset)


def train_loader(cfg: ConfigNode, world: World, dataset: TrainMedia) -> TrainLoader:
    """The training batches' parts that are this process's."""
    return TrainLoader(dataset, train_batches(cfg, world, dataset), *_loading(cfg, world))


def views_loader(cfg: ConfigNode, world: World, dataset: TestMedia) -> TestLoader:
    """Return the loader of this process's samples of an evaluation dataset."""
    return TestLoader(dataset, world.rank, world.size, *_loading(cfg, world))


def _loading(cfg: ConfigNode, world: World) -> tuple[int, float, int, bool]:
    loading = cfg.DATA_LOADER
    pin = loading.PIN_MEMORY and world.device.type == "cuda"
    return loading.NUM_WORKERS, loading.TIMEOUT, loading.PREFETCH_FACTOR, pin


def process_parts(cfg: ConfigNode, world: World) -> list[list[int]]:
    """Return this process's places in a training batch, one list per accumulation step."""
    parts = batch_parts(cfg.TRAIN.BATCH_SIZE, world.size * cfg.TRAIN.ACCUMULATION_STEPS)
    return parts[world.rank :: world.size]


def train_batches(cfg: ConfigNode, world: World, dataset: TrainMedia) -> EpochBatches:
    """The batches of this process; DataError when the training set is smaller than one batch."""
    if not len(dataset):
        raise DataError(f"TRAIN.DATASET {cfg.TRAIN.DATASET}: {cfg.DATA.PATH_TO_DATA_DIR} gives nothing to train on")
    if len(dataset) < cfg.TRAIN.BATCH_SIZE:
        raise DataError(
            f"TRAIN.BATCH_SIZE {cfg.TRAIN.BATCH_SIZE} is more than the {len(dataset)} videos of the training index; "
            f"set TRAIN.BATCH_SIZE to {len(dataset)} or less"
        )
    return EpochBatches(len(dataset), cfg.TRAIN.BATCH_SIZE, process_parts(cfg, world))
