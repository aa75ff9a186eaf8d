"""Base classes of all datasets: every hook that the rest of the package calls, with its default.

A dataset is one class in `DATASET_REGISTRY`; what differs from other datasets is declared in it.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import EvalDataset, TrainDataset, VideoEvalDataset, VideoTrainDataset
from slowfast.datasets.decode import VideoReader, open_video
from slowfast.datasets.mixup import Mixup
from slowfast.datasets.sample_files import LocalSamples, SampleFiles
from slowfast.datasets.sampling import BALANCED, NORMAL, SpanSampling, TemporalSampling
from slowfast.datasets.transforms import TrainTransform, ViewTransform
from slowfast.datasets.types import TRAIN, Record
from slowfast.errors import ConfigError
from slowfast.models.protocol import CLIPS, IMAGES
from slowfast.utils.logging import get_logger
from slowfast.utils.registry import ClassRegistry


class BaseDataset(ABC):
    """Base class of all datasets in `DATASET_REGISTRY`.

    Derive from `FrameDataset` for videos, folders of frames and images, and from
    :class:`~slowfast.datasets.event_cameras.EventDataset` for event recordings.

    Args:
        cfg: Config of the run.

    Attributes:
        input_kind: Kind of network inputs: ``CLIPS``, ``IMAGES`` or ``EVENTS``.
        num_classes: Number of classes of the complete dataset; None for any number. A subset may have fewer.
        reads_recordings: Whether samples are event recordings.
        reads_frame_folders: Whether a sample may be a folder of frames, named by DATA.IMAGE_TEMPLATE.
    """

    input_kind: ClassVar[str] = CLIPS
    num_classes: ClassVar[int | None] = None
    reads_recordings: ClassVar[bool] = False
    reads_frame_folders: ClassVar[bool] = False

    def __init__(self, cfg: ConfigNode) -> None:
        self.cfg = cfg

    # ------------------------------------------------------------------ index
    @abstractmethod
    def read_index(self, split: str) -> Sequence[Record]:
        """Return the samples of a split, "train", "val" or "test", with labels below MODEL.NUM_CLASSES.

        Raises:
            IndexFileError: If the index is missing or broken.
        """

    def read_class_names(self) -> list[str] | None:
        """Return the names of the MODEL.NUM_CLASSES classes by label; None if they have none."""
        return None

    # ------------------------------------------------------------------ samples
    @abstractmethod
    def build_train(self) -> TrainDataset:
        """Build the dataset of augmented training samples."""

    @abstractmethod
    def build_eval(self, records: Sequence[Record], all_views: bool) -> EvalDataset[Any]:
        """Build the dataset of the evaluation views of some samples.

        Args:
            records: The samples.
            all_views: Return all views of a test, in TEST.FRAME_ORDER; otherwise one view, the center.
        """

    # ------------------------------------------------------------------ checks
    def check(self, training: bool) -> None:
        """Check the settings without reading a sample; subclasses add their own checks.

        Args:
            training: True to check the training settings, False for the testing settings.

        Raises:
            ConfigError: If a setting is invalid for this dataset.
        """
        key, part = ("TRAIN", self.cfg.TRAIN) if training else ("TEST", self.cfg.TEST)
        if self.num_classes is not None and self.cfg.MODEL.NUM_CLASSES > self.num_classes:
            warn_once(
                f"{key}.DATASET {part.DATASET} has {self.num_classes} classes, but MODEL.NUM_CLASSES is "
                f"{self.cfg.MODEL.NUM_CLASSES}"
            )


class FrameDataset(BaseDataset):
    """Base class of datasets of videos, folders of frames or images.

    A subclass implements `read_index`; the defaults of the other hooks read videos as Kinetics.

    Attributes:
        single_view: Whether a sample has a single temporal view, like an image.
    """

    single_view: ClassVar[bool] = False
    _needs_suffix: ClassVar[bool] = False  # whether the suffix of a sample tells its format

    def open_sample(self, short_side: int, record: Record) -> VideoReader:
        """Open a video.

        Args:
            short_side: Short side that larger frames are scaled down to, as by the decoder of the published configs.
            record: The sample.

        Raises:
            DecodeError: If it cannot be read.
        """
        data, timeout = self.cfg.DATA, self.cfg.DATA_LOADER.TIMEOUT or None
        return open_video(record.path, data.DECODING_BACKEND, data.DECODING_THREADS, timeout, short_side)

    def temporal_sampling(self) -> TemporalSampling:
        """Return the temporal sampling of a clip: a span of fixed duration."""
        return SpanSampling.from_config(self.cfg)

    def view_transform(self, crops: int) -> ViewTransform:
        """Return the transform of an evaluation view: short side DATA.TRAIN_JITTER_SCALES[0] for a single crop.

        Args:
            crops: Number of spatial crops, 1 or 3.

        Raises:
            ConfigError: If the crop is larger than the frame.
        """
        size = self.cfg.DATA.TEST_CROP_SIZE
        return ViewTransform(size, self.cfg.DATA.TRAIN_JITTER_SCALES[0] if crops == 1 else size, crops)

    def decoded_side(self, transform: ViewTransform) -> int:
        """Return the short side (pixels) to which larger frames are scaled when they are decoded for a view."""
        # Never below the size that the views need, because a crop may be larger than the training scale.
        return max(self.cfg.DATA.TRAIN_JITTER_SCALES[0], transform.short_side)

    @property
    def reads_images(self) -> bool:
        """True if samples are single images."""
        return self.input_kind == IMAGES

    def _opener(self, short_side: int) -> LocalSamples:
        files = SampleFiles.from_config(self.cfg)
        return LocalSamples(functools.partial(self.open_sample, short_side), files, self._needs_suffix)

    def build_train(self) -> VideoTrainDataset:
        """Build the dataset of augmented training clips."""
        cfg = self.cfg
        return VideoTrainDataset(
            self.read_index(TRAIN),
            self._opener(cfg.DATA.TRAIN_JITTER_SCALES[0]),
            self.temporal_sampling(),
            TrainTransform.from_config(cfg, images=self.reads_images),
            samples=cfg.AUG.NUM_SAMPLE,
            seed=cfg.RNG_SEED,
            max_failed=cfg.DATA.MAX_FAILED,
            balanced=cfg.DATA.SAMPLING == BALANCED,
            repeated=cfg.AUG.REPEATED,
        )

    def build_eval(self, records: Sequence[Record], all_views: bool) -> VideoEvalDataset:
        """Build the dataset of evaluation views, views x crops or the center."""
        cfg = self.cfg
        views, crops = (cfg.TEST.NUM_ENSEMBLE_VIEWS, cfg.TEST.NUM_SPATIAL_CROPS) if all_views else (1, 1)
        transform = self.view_transform(crops)
        if 2 * transform.crop_size < transform.short_side:
            key = "DATA.IN_VAL_CROP_RATIO" if self.reads_images else "DATA.TRAIN_JITTER_SCALES"
            get_logger().info(
                f"The {transform.crop_size}-pixel crop covers less than half of the {transform.short_side}-pixel short "
                f"side (set by {key})"
            )
        return VideoEvalDataset(
            records,
            self._opener(self.decoded_side(transform)),
            self.temporal_sampling(),
            transform,
            views=views,
            order=cfg.TEST.FRAME_ORDER if all_views else NORMAL,
            seed=cfg.RNG_SEED,
        )

    def check(self, training: bool) -> None:
        """Check the transforms and the number of views; see `BaseDataset.check`."""
        super().check(training)
        cfg = self.cfg
        if training:
            TrainTransform.from_config(cfg)
            self.view_transform(1)
            if cfg.MIXUP.ENABLE:
                Mixup.from_config(cfg)
            return
        self.view_transform(cfg.TEST.NUM_SPATIAL_CROPS)
        if self.single_view and cfg.TEST.NUM_ENSEMBLE_VIEWS > 1:
            sample = "an image" if self.reads_images else "a recording"
            raise ConfigError(
                f"TEST.NUM_ENSEMBLE_VIEWS ({cfg.TEST.NUM_ENSEMBLE_VIEWS}): {sample} of TEST.DATASET {cfg.TEST.DATASET} "
                "has one temporal view. Set it to 1"
            )


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning once."""
    get_logger().warning(message)


DATASET_REGISTRY: ClassRegistry[BaseDataset] = ClassRegistry("DATASET", BaseDataset)  # type: ignore[type-abstract]
