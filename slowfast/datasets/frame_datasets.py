"""Datasets of videos, folders of frames and images: Kinetics, UCF101, HMDB51, Something-Something, ImageNet.

Each is one registered class, as a dataset in a file of your own is (docs/ADDING.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from slowfast.datasets.base import DATASET_REGISTRY, FrameDataset, warn_once
from slowfast.datasets.decode import VideoReader
from slowfast.datasets.decode.image import FrameFolderReader, ImageReader
from slowfast.datasets.index.entries import label_format
from slowfast.datasets.index.labeled_paths import (
    read_class_names,
    read_image_class_names,
    read_imagenet_index,
    read_kinetics_index,
)
from slowfast.datasets.index.official_splits import (
    read_hmdb51_classes,
    read_hmdb51_split,
    read_ucf101_classes,
    read_ucf101_split,
)
from slowfast.datasets.index.something import is_official, official_class_names, read_something_index
from slowfast.datasets.resample import antialiased
from slowfast.datasets.sampling import SegmentSampling, SingleImage, TemporalSampling
from slowfast.datasets.transforms import ViewTransform
from slowfast.datasets.types import TRAIN, Record
from slowfast.models.protocol import IMAGES


@DATASET_REGISTRY.register(name="kinetics")
class Kinetics(FrameDataset):
    """Videos listed in train.csv, val.csv and test.csv; any number of classes."""

    def read_index(self, split: str) -> Sequence[Record]:
        data = self.cfg.DATA
        return read_kinetics_index(
            data.PATH_TO_DATA_DIR,
            split,
            data.PATH_PREFIX,
            data.PATH_LABEL_SEPARATOR,
            self.cfg.MODEL.NUM_CLASSES,
            label_format(self.cfg),
        )

    def read_class_names(self) -> list[str] | None:
        return read_class_names(self.cfg.DATA.PATH_TO_DATA_DIR, self.cfg.MODEL.NUM_CLASSES)


class SplitFileDataset(FrameDataset):
    """Base class of datasets with three official splits; validation videos are the test videos.

    Attributes:
        published: Number of training and test videos of each split.
    """

    published: ClassVar[dict[int, tuple[int, int]]]

    def _counted(self, split: str, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records; warn if their number differs from the published one."""
        number = self.cfg.DATA.SPLIT
        expected = self.published[number][split != TRAIN]
        if len(records) != expected:
            kind = "training" if split == TRAIN else "test"
            warn_once(
                f"DATA.PATH_TO_DATA_DIR {self.cfg.DATA.PATH_TO_DATA_DIR} lists {len(records)} {kind} videos, split "
                f"{number} as published has {expected}. Accuracies on other lists are not comparable"
            )
        return records


@DATASET_REGISTRY.register(name="ucf101")
class UCF101(SplitFileDataset):
    """UCF101 (arXiv 1212.0402): 13320 videos."""

    num_classes = 101
    published = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}

    def read_index(self, split: str) -> Sequence[Record]:
        data, num_classes = self.cfg.DATA, self.cfg.MODEL.NUM_CLASSES
        records = read_ucf101_split(data.PATH_TO_DATA_DIR, split, data.SPLIT, data.PATH_PREFIX, num_classes)
        return self._counted(split, records)

    def read_class_names(self) -> list[str]:
        return read_ucf101_classes(self.cfg.DATA.PATH_TO_DATA_DIR, self.cfg.MODEL.NUM_CLASSES)


@DATASET_REGISTRY.register(name="hmdb51")
class HMDB51(SplitFileDataset):
    """HMDB51 (Kuehne et al., ICCV 2011): 70 training and 30 test videos of each class."""

    num_classes = 51
    published = dict.fromkeys((1, 2, 3), (51 * 70, 51 * 30))

    def read_index(self, split: str) -> Sequence[Record]:
        data, num_classes = self.cfg.DATA, self.cfg.MODEL.NUM_CLASSES
        records = read_hmdb51_split(data.PATH_TO_DATA_DIR, split, data.SPLIT, data.PATH_PREFIX, num_classes)
        return self._counted(split, records)

    def read_class_names(self) -> list[str]:
        return read_hmdb51_classes(self.cfg.DATA.PATH_TO_DATA_DIR, self.cfg.DATA.SPLIT, self.cfg.MODEL.NUM_CLASSES)


@DATASET_REGISTRY.register(name="sth")
class SomethingSomething(FrameDataset):
    """Base class of both versions, with the lists named by DATA.LABEL_PATH_TEMPLATE.

    Attributes:
        other_version: Part of DATA.LABEL_PATH_TEMPLATE that names the lists of the other version.
    """

    num_classes = 174
    reads_frame_folders = True
    other_version: ClassVar[str | None] = None

    def read_index(self, split: str) -> Sequence[Record]:
        data = self.cfg.DATA
        return read_something_index(
            data.PATH_TO_DATA_DIR,
            data.LABEL_PATH_TEMPLATE,
            split,
            data.PATH_PREFIX,
            self.cfg.MODEL.NUM_CLASSES,
            data.IMAGE_TEMPLATE,
        )

    def read_class_names(self) -> list[str] | None:
        folder, template = self.cfg.DATA.PATH_TO_DATA_DIR, self.cfg.DATA.LABEL_PATH_TEMPLATE
        if is_official(template):
            return official_class_names(folder, template, self.cfg.MODEL.NUM_CLASSES)
        return read_class_names(folder, self.cfg.MODEL.NUM_CLASSES)

    def open_sample(self, short_side: int, record: Record) -> VideoReader:
        """Open a folder of frames, or a video if the index gives no number of frames."""
        if record.frames is None:
            return super().open_sample(short_side, record)
        data = self.cfg.DATA
        return FrameFolderReader(record.path, data.IMAGE_TEMPLATE, record.frames, data.TARGET_FPS)

    def temporal_sampling(self) -> TemporalSampling:
        """Return the temporal sampling of a clip: one frame in each of T equal segments."""
        return SegmentSampling(self.cfg.DATA.NUM_FRAMES)

    def view_transform(self, crops: int) -> ViewTransform:
        """Return the transform of an evaluation view: short side DATA.TEST_CROP_SIZE."""
        size = self.cfg.DATA.TEST_CROP_SIZE
        return ViewTransform(size, size, crops, single=self.cfg.TEST.SINGLE_CROP)

    def check(self, training: bool) -> None:
        """Check that the lists are not those of the other version; see `FrameDataset.check`."""
        super().check(training)
        template = self.cfg.DATA.LABEL_PATH_TEMPLATE
        if self.other_version is not None and self.other_version in template:
            name = self.cfg.TRAIN.DATASET if training else self.cfg.TEST.DATASET
            warn_once(f"DATA.LABEL_PATH_TEMPLATE ({template}) names lists of {self.other_version}, not of {name}")


@DATASET_REGISTRY.register(name="ssv1")
class SomethingV1(SomethingSomething):
    """Something-Something V1: frames named ``{:05d}.jpg``."""

    other_version = "somesomev2"


@DATASET_REGISTRY.register(name="ssv2")
class SomethingV2(SomethingSomething):
    """Something-Something V2: frames named ``{:06d}.jpg``, or the published videos."""

    other_version = "somesomev1"


@DATASET_REGISTRY.register(name="imagenet")
class ImageNet(FrameDataset):
    """Images in class folders or lists; any number of classes."""

    input_kind = IMAGES
    single_view = True

    def read_index(self, split: str) -> Sequence[Record]:
        data = self.cfg.DATA
        return read_imagenet_index(
            data.PATH_TO_DATA_DIR,
            split,
            data.PATH_PREFIX,
            data.PATH_LABEL_SEPARATOR,
            self.cfg.MODEL.NUM_CLASSES,
            label_format(self.cfg),
        )

    def read_class_names(self) -> list[str] | None:
        data = self.cfg.DATA
        return read_image_class_names(data.PATH_TO_DATA_DIR, data.PATH_PREFIX, self.cfg.MODEL.NUM_CLASSES)

    def open_sample(self, short_side: int, record: Record) -> VideoReader:
        """Open an image at its original size."""
        return ImageReader(record.path)

    def temporal_sampling(self) -> TemporalSampling:
        return SingleImage()

    def view_transform(self, crops: int) -> ViewTransform:
        """Return the transform of an evaluation view, as published networks were evaluated.

        The short side of a single crop is DATA.TEST_CROP_SIZE / DATA.IN_VAL_CROP_RATIO, rounded down. Half pixels of
        the center crop's corner are rounded to even.
        """
        data = self.cfg.DATA
        size = data.TEST_CROP_SIZE
        short_side = math.floor(size / data.IN_VAL_CROP_RATIO) if crops == 1 else size
        return ViewTransform(size, short_side, crops, antialiased(data.IN_VAL_INTERPOLATION), center=round)
