"""UCF101 with its official split files: a dataset added by one file, without a change of the package.

    slowfast train --cfg examples/ucf101_small_3d_cnn.yaml --import examples/ucf101.py --import examples/small_3d_cnn.py

DATA.PATH_TO_DATA_DIR is the folder of the split files, DATA.PATH_PREFIX that of the class folders of videos:

    classInd.txt       1 ApplyEyeMakeup
    trainlist01.txt    ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1
    testlist01.txt     ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi
"""

from pathlib import Path

from slowfast.datasets.base import DATASET_REGISTRY, FrameDataset
from slowfast.datasets.index.common import SampleRoot, check_samples_exist
from slowfast.datasets.index.lines import read_lines
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError

HINT = "set DATA.PATH_TO_DATA_DIR to the folder of UCF101's split files"


@DATASET_REGISTRY.register(name="ucf101")
class UCF101(FrameDataset):
    """UCF101 (arXiv 1212.0402), the first of its three official splits."""

    num_classes = 101
    lists = {"train": "trainlist01.txt", "val": "testlist01.txt", "test": "testlist01.txt"}

    def read_index(self, split: str) -> list[Record]:
        """Return the videos of a split; the class is the folder of a video."""
        file = Path(self.cfg.DATA.PATH_TO_DATA_DIR) / self.lists[split]
        labels = {name: label for label, name in enumerate(self.read_class_names())}
        root = SampleRoot(self.cfg.DATA.PATH_PREFIX)
        records: list[Record] = []
        for number, line in read_lines(file, HINT):
            video = line.split()[0]  # training lists give the label, too
            name = video.partition("/")[0]
            if name not in labels:
                raise IndexFileError(f"{file} line {number}: class {name!r} is not among the classes of classInd.txt")
            records.append(Record(len(records), root.locate(video), video, labels[name]))
        check_samples_exist(records, file)
        return records

    def read_class_names(self) -> list[str]:
        """Return the names of the first MODEL.NUM_CLASSES classes; in classInd.txt they are numbered from 1."""
        file = Path(self.cfg.DATA.PATH_TO_DATA_DIR) / "classInd.txt"
        return [line.split()[1] for _, line in read_lines(file, HINT)][: self.cfg.MODEL.NUM_CLASSES]
