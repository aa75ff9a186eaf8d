"""Kinetics, and any other dataset of videos listed in csv files."""

from __future__ import annotations

from collections.abc import Sequence

from slowfast.datasets.base import DATASET_REGISTRY, FrameDataset
from slowfast.datasets.index.kinetics import read_class_names, read_kinetics_index
from slowfast.datasets.index.labels import label_format
from slowfast.datasets.types import Record


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
