"""The Something-Something index, V1 and V2: lists of extracted frames, or the official JSON lists of the videos.

Lists of frames (`somesomev1_rgb_train_split.txt`) have a line `folder frames label` a video. Official lists
(`train.json`) are objects with the fields `id` and `template`; `labels.json` beside them gives each template's label.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from slowfast.datasets.index.paths import MediaRoot, check_media_exist
from slowfast.datasets.index.text import read_lines
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError

# What stands for {} in DATA.LABEL_PATH_TEMPLATE.
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
LABELS = "labels"  # the same, for the official table of labels
VIDEO_SUFFIXES = (".webm", ".mp4")  # of the official videos, and of what they are often re-encoded to

_FORM = "folder frames label"


def read_something_index(data_dir: Path, template: str, split: str, prefix: str, num_classes: int) -> list[Record]:
    """The videos of a split ("train", "val", "test") with their labels, in the list's order.

    `template` is DATA.LABEL_PATH_TEMPLATE; one that ends in .json names the official lists and means videos, any other
    means folders of frames. The labels of the official test set were never published: without a labelled test list
    the validation list is tested. Raises IndexFileError for a missing, empty or broken list, a label outside
    [0, num_classes), and paths outside `prefix` (DATA.PATH_PREFIX).
    """
    file = _list_file(Path(data_dir), template, split)
    if is_official(template):
        labels = read_labels(Path(data_dir), template, num_classes)
        records = _videos(file, labels, MediaRoot(prefix), prefix)
    else:
        records = _frame_folders(file, MediaRoot(prefix), num_classes)
    check_media_exist(records, file)
    return records


def is_official(template: str) -> bool:
    """Whether the lists are the official JSON ones."""
    return template.endswith(".json")


def _list_file(data_dir: Path, template: str, split: str) -> Path:
    """The list of a split."""
    if split == "test" and (is_official(template) or not (data_dir / template.format(SPLIT_NAMES["test"])).exists()):
        split = "val"
    return data_dir / template.format(SPLIT_NAMES[split])


# ------------------------------------------------------------------ lists of frames
def _frame_folders(file: Path, root: MediaRoot, num_classes: int) -> list[Record]:
    lines = read_lines(file, "check DATA.PATH_TO_DATA_DIR and DATA.LABEL_PATH_TEMPLATE")
    if not lines:
        raise IndexFileError(f"{file} is empty; expected lines of the form {_FORM}")
    records: list[Record] = []
    for number, line in lines:
        try:
            name, frames, label = parse_frames_line(line, num_classes)
            records.append(Record(len(records), root.locate(name), name, label, frames))
        except ValueError as error:
            raise IndexFileError(
                f"{file} line {number}: {line!r}: {error}; expected {_FORM} with at least 1 frame and a label from 0 "
                f"to {num_classes - 1} (MODEL.NUM_CLASSES {num_classes})"
            ) from error
    return records


def parse_frames_line(line: str, num_classes: int) -> tuple[str, int, int]:
    """Folder, number of frames and label of one line; ValueError says what is wrong with it."""
    parts = line.rsplit(maxsplit=2)
    if len(parts) < 3:
        raise ValueError(f"{len(parts)} fields")
    name, frames, label = parts
    if not frames.isdecimal() or int(frames) < 1:
        raise ValueError(f"{frames!r} is not a number of frames")
    if not label.isdecimal():
        raise ValueError(f"label {label!r} is not a number of a class")
    if int(label) >= num_classes:
        raise ValueError(f"label {int(label)} is out of range")
    return name, int(frames), int(label)


# ------------------------------------------------------------------ official lists
def read_labels(data_dir: Path, template: str, num_classes: int) -> dict[str, int]:
    """Label of each template, such as "Holding something", from the official table.

    Raises IndexFileError when it is missing or broken, or holds a label outside [0, num_classes) or one twice.
    """
    file = data_dir / template.format(LABELS)
    table = _read_json(file)
    if not isinstance(table, dict) or not all(str(label).isdecimal() for label in table.values()):
        raise IndexFileError(f'{file}: expected one object of the form {{"Holding something": "0", ...}}')
    labels = {text: int(label) for text, label in table.items()}
    for text, label in labels.items():
        if label >= num_classes:
            raise IndexFileError(f"{file}: {text!r}: label {label} is out of range: MODEL.NUM_CLASSES is {num_classes}")
    doubled = [label for label, count in Counter(labels.values()).items() if count > 1]
    if doubled:
        raise IndexFileError(f"{file}: label {doubled[0]} stands for more than one text")
    return labels


def official_class_names(data_dir: Path, template: str, num_classes: int) -> list[str]:
    """Names of the classes by label; a label that the official table lacks is named by its number."""
    names = {label: text for text, label in read_labels(data_dir, template, num_classes).items()}
    return [names.get(label, str(label)) for label in range(num_classes)]


def _videos(file: Path, labels: dict[str, int], root: MediaRoot, prefix: str) -> list[Record]:
    entries = _read_json(file)
    if not isinstance(entries, list) or not entries:
        raise IndexFileError(f'{file}: expected a list of objects of the form {{"id": "1", "template": "..."}}')
    found = _video_names(prefix)
    usual = Counter(Path(name).suffix for name in found.values()).most_common(1)
    suffix = usual[0][0] if usual else VIDEO_SUFFIXES[0]
    records: list[Record] = []
    for number, entry in enumerate(entries, start=1):
        try:
            stem, label = _parse_entry(entry, labels)
            name = found.get(stem, stem + suffix)
            records.append(Record(len(records), root.locate(name), name, label))
        except ValueError as error:
            raise IndexFileError(f"{file} entry {number}: {error}") from error
    return records


def _video_names(prefix: str) -> dict[str, str]:
    """The videos that lie in the folder, by their name without suffix: one look at it instead of one a video."""
    with os.scandir(prefix or ".") as files:
        names = sorted(file.name for file in files if file.name.lower().endswith(VIDEO_SUFFIXES))
    return {Path(name).stem: name for name in names}


def _parse_entry(entry: Any, labels: dict[str, int]) -> tuple[str, int]:
    """Id and label of an entry of an official list; ValueError says what is wrong with it."""
    if not isinstance(entry, dict) or "id" not in entry or "template" not in entry:
        raise ValueError(f'{str(entry)[:80]}: expected an object with "id" and "template"')
    text = str(entry["template"]).replace("[", "").replace("]", "")  # Holding [something] -> Holding something
    if text not in labels:
        raise ValueError(f"template {entry['template']!r} is not in the table of labels")
    return str(entry["id"]), labels[text]


def _read_json(file: Path) -> Any:
    text = "\n".join(line for _, line in read_lines(file, "check DATA.PATH_TO_DATA_DIR and DATA.LABEL_PATH_TEMPLATE"))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        near = text[error.pos : error.pos + 20]
        raise IndexFileError(f"{file}: not valid JSON: {error.msg} near {near!r}") from error
