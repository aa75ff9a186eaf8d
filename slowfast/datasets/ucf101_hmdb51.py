"""UCF101 and HMDB51 with their official split files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from slowfast.datasets.base import DATASET_REGISTRY, FrameDataset, warn_once
from slowfast.datasets.index.official_splits import (
    read_hmdb51_classes,
    read_hmdb51_split,
    read_ucf101_classes,
    read_ucf101_split,
)
from slowfast.datasets.types import TRAIN, Record


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
