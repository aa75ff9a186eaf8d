"""A custom dataset, added by one file without changing the package: videos with a table of annotations.

    slowfast train --cfg examples/annotations_small_3d_cnn.yaml --import examples/annotations.py \
        --import examples/small_3d_cnn.py

DATA.PATH_TO_DATA_DIR is the folder of annotations.csv, DATA.PATH_PREFIX that of the videos:

    video,activity,split
    kitchen/0001.mp4,pour,train
    kitchen/0002.mp4,stir,test
"""

import csv
from pathlib import Path

from slowfast.datasets.base import DATASET_REGISTRY, FrameDataset
from slowfast.datasets.index.common import SampleRoot, check_samples_exist
from slowfast.datasets.index.lines import read_lines
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError

COLUMNS = ["video", "activity", "split"]


@DATASET_REGISTRY.register(name="annotations")
class Annotations(FrameDataset):
    """Videos in a table of video, activity and split; activities are numbered in alphabetical order."""

    def read_index(self, split: str) -> list[Record]:
        """Return the videos of a split; if there are none for "val", those of "test" are used."""
        rows, names = self._rows(), self.read_class_names()
        wanted = "test" if split == "val" and all(row[2] != "val" for row in rows) else split
        root = SampleRoot(self.cfg.DATA.PATH_PREFIX)
        found = [(video, names.index(activity)) for video, activity, part in rows if part == wanted]
        records = [Record(at, root.locate(video), video, label) for at, (video, label) in enumerate(found)]
        check_samples_exist(records, self._file)
        return records

    def read_class_names(self) -> list[str]:
        """Return the activities by label."""
        names = sorted({activity for _, activity, _ in self._rows()})
        if len(names) != self.cfg.MODEL.NUM_CLASSES:
            raise IndexFileError(f"{self._file} has {len(names)} activities. Set MODEL.NUM_CLASSES to {len(names)}")
        return names

    @property
    def _file(self) -> Path:
        return Path(self.cfg.DATA.PATH_TO_DATA_DIR) / "annotations.csv"

    def _rows(self) -> list[list[str]]:
        lines = read_lines(self._file, "set DATA.PATH_TO_DATA_DIR to its folder")
        rows = list(csv.reader(line for _, line in lines))
        for (number, line), row in zip(lines, rows, strict=True):
            if len(row) != len(COLUMNS) or (number > 1 and row[2] not in ("train", "val", "test")):
                raise IndexFileError(f"{self._file} line {number}: {line!r}. Expected video,activity,train|val|test")
        if not rows or rows[0] != COLUMNS:
            raise IndexFileError(f"{self._file}: the first line must be {','.join(COLUMNS)}")
        return rows[1:]
