"""The Kinetics index: a csv file a split, a line `path<separator>label` a video, and optional class names."""

from __future__ import annotations

from pathlib import Path

from slowfast.datasets.index.paths import MediaRoot, check_media_exist
from slowfast.datasets.index.text import read_lines
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError

CLASS_NAMES_FILE = "categories.txt"


def read_kinetics_index(data_dir: Path, split: str, prefix: str, separator: str, num_classes: int) -> list[Record]:
    """The videos of a split ("train", "val", "test") with their labels, in the file's order.

    A path may contain the separator: the label is what follows the last one. Raises IndexFileError for a missing,
    empty or broken index, a label outside [0, num_classes), and paths outside `prefix` (DATA.PATH_PREFIX).
    """
    file = Path(data_dir) / f"{split}.csv"
    hint = "set DATA.PATH_TO_DATA_DIR to the folder of train.csv, val.csv and test.csv"
    return read_labelled_paths(file, hint, MediaRoot(prefix), separator, num_classes)


def read_labelled_paths(file: Path, hint: str, root: MediaRoot, separator: str, num_classes: int) -> list[Record]:
    """The records of a file of lines `path<separator>label`; `hint` says what to do where there is no such file.

    Raises IndexFileError as `read_kinetics_index`.
    """
    lines = read_lines(file, hint)
    if not lines:
        raise IndexFileError(f"{file} is empty; expected lines of the form path{separator}label")
    records: list[Record] = []
    for number, line in lines:
        try:
            name, label = parse_line(line, separator, num_classes)
            records.append(Record(len(records), root.locate(name), name, label))
        except ValueError as error:
            raise IndexFileError(
                f"{file} line {number}: {line!r}: {error}; expected path{separator}label with a label from 0 to "
                f"{num_classes - 1} (DATA.PATH_LABEL_SEPARATOR {separator!r}, MODEL.NUM_CLASSES {num_classes})"
            ) from error
    check_media_exist(records, file)
    return records


def parse_line(line: str, separator: str, num_classes: int | None = None) -> tuple[str, int]:
    """Path and label of one line; ValueError says what is wrong with it. `num_classes` None: any label."""
    name, found, label = line.rpartition(separator)
    if not found or not name.strip():
        raise ValueError("no label" if not found else "no path")
    if not label.strip().isdecimal():
        raise ValueError(f"label {label.strip()!r} is not a number of a class")
    if num_classes is not None and int(label) >= num_classes:
        raise ValueError(f"label {int(label)} is out of range")
    return name.strip(), int(label)


def read_class_names(data_dir: Path, num_classes: int) -> list[str] | None:
    """Names of the classes by label, from categories.txt: `name<tab>label` lines or a name a line; None without it.

    Raises IndexFileError when names are missing, too many, or given twice for a label.
    """
    file = Path(data_dir) / CLASS_NAMES_FILE
    if not file.exists():
        return None
    names: dict[int, str] = {}
    for place, (number, line) in enumerate(read_lines(file, "it holds the class names")):
        name, found, label = line.rpartition("\t")
        if found and not label.strip().isdecimal():
            raise IndexFileError(f"{file} line {number}: {line!r}: expected name<tab>label or a name alone")
        key = int(label) if found else place
        if key in names:
            raise IndexFileError(f"{file} line {number}: {line!r}: label {key} has a name already, {names[key]!r}")
        names[key] = name.strip() if found else line
    if set(names) != set(range(num_classes)):
        raise IndexFileError(
            f"{file} names {len(names)} classes, labels {min(names, default=0)} to {max(names, default=0)}; "
            f"MODEL.NUM_CLASSES {num_classes} needs labels 0 to {num_classes - 1}, each once"
        )
    return [names[label] for label in range(num_classes)]
