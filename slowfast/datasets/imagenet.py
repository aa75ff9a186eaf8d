"""ImageNet, and any other dataset of images in class folders."""

from __future__ import annotations

import math
from collections.abc import Sequence

from slowfast.datasets.base import DATASET_REGISTRY, FrameDataset
from slowfast.datasets.decode import VideoReader
from slowfast.datasets.decode.image import ImageReader
from slowfast.datasets.index.imagenet import read_image_class_names, read_imagenet_index
from slowfast.datasets.index.labels import label_format
from slowfast.datasets.resample import antialiased
from slowfast.datasets.sampling import SingleImage, TemporalSampling
from slowfast.datasets.transforms import ViewTransform
from slowfast.datasets.types import Record
from slowfast.models.protocol import IMAGES


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
        return SingleImage.from_config(self.cfg)

    def view_transform(self, crops: int) -> ViewTransform:
        """Return the transform of an evaluation view, as published networks were evaluated.

        The short side of a single crop is DATA.TEST_CROP_SIZE / DATA.IN_VAL_CROP_RATIO, rounded down. Half pixels of
        the center crop's corner are rounded to even.
        """
        data = self.cfg.DATA
        size = data.TEST_CROP_SIZE
        short_side = math.floor(size / data.IN_VAL_CROP_RATIO) if crops == 1 else size
        return ViewTransform(size, short_side, crops, antialiased(data.IN_VAL_INTERPOLATION), center=round)
