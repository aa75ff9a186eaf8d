"""The Something-Something index, V1 and V2: lists of extracted frames, or the official lists.

Lists of frames (`somesomev1_rgb_train_split.txt`) have a line `folder frames label` per video; something_official.py
has the others.
"""

from __future__ import annotations

import os
from pathlib import Path

from slowfast.datasets.index.paths import MediaRoot, check_media_exist
from slowfast.datasets.index.something_official import is_official, read_official_list
from slowfast.datasets.index.text import parse_number, read_lines
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError
from slowfast.utils.quote import plain, quoted

# What stands for {} in DATA.LABEL_PATH_TEMPLATE.
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}

MAX_FRAMES = 10**9  # of a video
_FORM = "folder frames label"


def read_something_index(
    data_dir: Path, template: str, split: str, prefix: str, num_classes: int, image_template: str = "{:05d}.jpg"
) -> list[Record]:
    """Return the videos of a split ("train", "val", "test") with their labels, in the list's order.

    `template` is DATA.LABEL_PATH_TEMPLATE; one that ends in .json or .csv names the official lists of V2's videos or of
    V1's folders of frames, whose frames are counted by their names (`image_template`, DATA.IMAGE_TEMPLATE). The labels
    of the official test sets were never published: without a labelled test list the validation list is tested.

    Raises:
        IndexFileError: For a missing, empty or broken list, a label outside [0, num_classes), and paths outside
            `prefix` (DATA.PATH_PREFIX).
    """
    file = _list_file(Path(data_dir), template, split)
    if is_official(template):
        records = read_official_list(file, Path(data_dir), template, prefix, num_classes, image_template)
    else:
        records = _frame_folders(file, MediaRoot(prefix), num_classes)
    check_media_exist(records, file)
    return records


def _list_file(data_dir: Path, template: str, split: str) -> Path:
    """Return the list of a split."""
    test_list = data_dir / template.format(SPLIT_NAMES["test"])
    if split == "test" and (is_official(template) or not os.path.exists(test_list)):
        split = "val"
    return data_dir / template.format(SPLIT_NAMES[split])


# ------------------------------------------------------------------ lists of frames
def _frame_folders(file: Path, root: MediaRoot, num_classes: int) -> list[Record]:
    lines = read_lines(file, "check DATA.PATH_TO_DATA_DIR and DATA.LABEL_PATH_TEMPLATE")
    if not lines:
        raise IndexFileError(f"{plain(file)} is empty. Expected lines of the form {_FORM}")
    records: list[Record] = []
    for number, line in lines:
        try:
            name, frames, label = parse_frames_line(line, num_classes)
            records.append(Record(len(records), root.locate(name), name, label, frames))
        except ValueError as error:
            raise IndexFileError(
                f"{plain(file)} line {number}: {quoted(line)}: {error}. Expected {_FORM} with at least 1 frame and a "
                f"label from 0 to {num_classes - 1} (MODEL.NUM_CLASSES {num_classes})"
            ) from None
    return records


def parse_frames_line(line: str, num_classes: int) -> tuple[str, int, int]:
    """Return folder, number of frames and label of one line; ValueError says what is wrong with it."""
    parts = line.rsplit(maxsplit=2)
    if len(parts) < 3:
        raise ValueError(f"{len(parts)} fields")
    name, frames, label = parts
    count = parse_number(frames, "number of frames", MAX_FRAMES)
    if not count:
        raise ValueError("number of frames 0 is out of range")
    return name, count, parse_number(label, "label", num_classes)
