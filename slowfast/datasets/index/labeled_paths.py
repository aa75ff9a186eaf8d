"""Indexes of Kinetics and ImageNet: lists of paths and labels, class folders, and the names of the classes.

Kinetics   train.csv, val.csv, test.csv, with a line `path<separator>label` per video
ImageNet   train_list.txt, val_list.txt and optionally test_list.txt, with lines such as `train/n01440764/x.JPEG 0`; or
           folders train/, val/ and optionally test/ of class folders, whose labels are their indices in sorted order.
           Without test images the validation images are tested
both       categories.txt (optional), the class names: a line `name<tab>label` or `name` per class. If these are the
           names of ImageNet's class folders, they define the labels, so that a subset can be tested
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any

from slowfast.datasets.decode.reader import IMAGE_SUFFIXES, skipped_note, unrecognized
from slowfast.datasets.index.entries import (
    LABEL_SEPARATOR,
    ONE_CLASS,
    LabelFormat,
    SampleRoot,
    check_samples_exist,
    format_label,
    has_suffix,
    index_exists,
    inner_folders,
    parse_number,
    walk_files,
)
from slowfast.datasets.index.lines import read_lines, scan_lines
from slowfast.datasets.index.parse import Columns, Entry, parse_labels, split_labeled_lines
from slowfast.datasets.records import RecordTable, TableBuilder
from slowfast.errors import IndexFileError
from slowfast.utils.logging import get_logger
from slowfast.utils.remote.address import as_address, join_path
from slowfast.utils.text import plain, quoted

CLASS_NAMES_FILE = "categories.txt"
LISTS = "{}_list.txt"
_QUOTE = '"'
_USUAL_SEPARATORS = (" ", ",", "\t", ";")


# ------------------------------------------------------------------ lists
def read_kinetics_index(
    data_dir: str | Path, split: str, prefix: str, separator: str, num_classes: int, labels: LabelFormat = ONE_CLASS
) -> RecordTable:
    """Return the videos of a split in the order of the file.

    A path may contain the separator; the label follows the last one. A line that starts with a quotation mark is parsed
    as csv.

    Args:
        data_dir: Path or address of the folder of the csv files.
        split: ``train``, ``val`` or ``test``.
        prefix: Folder of the videos (DATA.PATH_PREFIX).
        separator: Separator of path and label.
        num_classes: Number of classes.

    Raises:
        IndexFileError: If the file is missing, empty or broken, a label is out of range or a path leaves the prefix.
    """
    file = join_path(data_dir, f"{split}.csv")
    hint = "set DATA.PATH_TO_DATA_DIR to the folder of train.csv, val.csv and test.csv"
    return read_labeled_paths(file, hint, SampleRoot(prefix), separator, num_classes, labels)


def read_labeled_paths(
    file: str | Path, hint: str, root: SampleRoot, separator: str, num_classes: int, labels: LabelFormat = ONE_CLASS
) -> RecordTable:
    """Return the records of a file of lines `path<separator>label`.

    Lines of the usual form are parsed together; lines that may be invalid are parsed one by one with `parse_line`.

    Args:
        file: Path or address of the file.
        hint: Advice in the message if there is no such file.
        root: Folder of the samples.
        separator: Separator of path and label.
        num_classes: Number of classes.
        labels: Format of the labels.

    Raises:
        IndexFileError: If the file is missing, empty or broken, a label is out of range or a path leaves the prefix.
    """
    lines = scan_lines(file, hint)
    if not len(lines):
        raise IndexFileError(f"{plain(file)} is empty. Expected lines of the form path{separator}label")

    def parse(line: str, number: int) -> Entry:
        try:
            name, label = parse_line(line, separator, num_classes, labels)
            root.locate(name)
        except ValueError as error:
            near = _other_separator(line, separator, num_classes, labels)
            form = f"path{separator}label with {labels.expected.format(last=num_classes - 1)}"
            raise IndexFileError(
                f"{plain(file)} line {number}: {quoted(line)}: {error}. Expected {form} (DATA.PATH_LABEL_SEPARATOR "
                f"{separator!r}, MODEL.NUM_CLASSES {num_classes}){near}"
            ) from None
        return Entry(name, label)

    columns = Columns(lines)
    for block in lines.blocks():
        names, texts, valid = split_labeled_lines(block, separator)
        values = parse_labels(block.codes, texts, valid, num_classes, labels)
        if labels.several:  # a comma at the end of the path comes from a space between labels
            valid &= block.codes[names[1] - 1] != ord(LABEL_SEPARATOR)
        valid &= root.surely_holds(block.codes, *names)
        columns.add(block, names, values, valid, parse)
    records = columns.table(root.folder)
    check_samples_exist(records, file)
    return records


def parse_line(
    line: str, separator: str, num_classes: int | None = None, labels: LabelFormat = ONE_CLASS
) -> tuple[str, Any]:
    """Return path and label of a line.

    Args:
        line: The line.
        separator: Separator of path and label.
        num_classes: Number of classes; None for any label.
        labels: Format of the labels.

    Raises:
        ValueError: If the line is broken.
    """
    if line.startswith(_QUOTE) and len(separator) == 1:
        name, label = _parse_quoted(line, separator)
    else:
        name, found, label = line.rpartition(separator)
        if not found:
            raise ValueError("no label")
    name = name.strip()
    if not name:
        raise ValueError("no path")
    if labels.several and name.endswith(LABEL_SEPARATOR):
        raise ValueError("a space between labels")
    return name, labels.parse(label.strip(), num_classes)


def format_line(name: str, separator: str, label: Any) -> str:
    """Return the line for a path and a label, the inverse of `parse_line`."""
    if name.startswith(_QUOTE) and len(separator) == 1:
        name = _QUOTE + name.replace(_QUOTE, _QUOTE * 2) + _QUOTE
    return f"{name}{separator}{format_label(label)}\n"


def _parse_quoted(line: str, separator: str) -> tuple[str, str]:
    """Split a line of a quoted path and a label, as Python's csv module and spreadsheets write them."""
    try:
        fields = next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=separator != " "))
    except (csv.Error, TypeError, StopIteration):
        raise ValueError("unbalanced quotation marks") from None
    if len(fields) != 2:
        raise ValueError(f"{len(fields)} fields after the quotation marks are removed")
    return fields[0], fields[1]


def _other_separator(line: str, separator: str, num_classes: int, labels: LabelFormat) -> str:
    """Return advice on a separator with which the line would be valid; "" if there is none."""
    for other in _USUAL_SEPARATORS:
        if labels.several and other == LABEL_SEPARATOR:
            continue
        try:
            parse_line(line, other, num_classes, labels)
        except ValueError:
            continue
        if other != separator:
            return f". Set DATA.PATH_LABEL_SEPARATOR to {other!r} if that is the separator"
    return ""


# ------------------------------------------------------------------ class names
def read_class_names(data_dir: str | Path, num_classes: int) -> list[str] | None:
    """Return the names of the classes by label from categories.txt, with a line `name<tab>label` or `name` per class.

    Returns:
        The names; None if there is no such file.

    Raises:
        IndexFileError: If a label has no name or more than one, or is out of range.
    """
    file = join_path(data_dir, CLASS_NAMES_FILE)
    if not index_exists(file):
        return None
    names: dict[int, str] = {}
    for position, (number, line) in enumerate(read_lines(file, "put the class names there")):
        name, found, label = line.rpartition("\t")
        where = f"{plain(file)} line {number}: {quoted(line)}"
        try:
            key = parse_number(label.strip(), "label") if found else position
        except ValueError as error:
            raise IndexFileError(f"{where}: {error}. Expected name<tab>label or a name") from None
        if key in names:
            raise IndexFileError(f"{where}: label {key} already has a name, {quoted(names[key])}. Remove one of them")
        names[key] = name.strip() if found else line
    if set(names) != set(range(num_classes)):
        raise IndexFileError(
            f"{plain(file)} names {len(names)} classes, labels {min(names, default=0)} to {max(names, default=0)}. "
            f"MODEL.NUM_CLASSES {num_classes} needs labels 0 to {num_classes - 1}, each once"
        )
    return [names[label] for label in range(num_classes)]


# ------------------------------------------------------------------ ImageNet
def read_imagenet_index(
    data_dir: str | Path, split: str, prefix: str, separator: str, num_classes: int, labels: LabelFormat = ONE_CLASS
) -> RecordTable:
    """Return the images of a split from a list, or from class folders if there is no list.

    Args:
        data_dir: Path or address of the folder of the lists, or path of that of train and val.
        split: ``train``, ``val`` or ``test``.
        prefix: Folder that paths of a list are relative to (DATA.PATH_PREFIX), or a second folder to search for train
            and val; "" for `data_dir`.
        separator: Separator of path and label in a list.
        num_classes: Number of classes.

    Raises:
        IndexFileError: If there is neither, a line is broken, a class folder is empty or a label is out of range.
    """
    root = _image_root(data_dir, prefix)
    for name in (split, "val") if split == "test" else (split,):
        file = join_path(data_dir, LISTS.format(name))
        if index_exists(file):
            if as_address(data_dir) and not prefix:
                raise IndexFileError(f"{plain(file)}: DATA.PATH_PREFIX is empty. Set it to the folder of the images")
            return read_labeled_paths(file, "", SampleRoot(prefix or str(data_dir)), separator, num_classes, labels)
        if _class_folders(root / name):
            return _read_folders(root, name, _folder_labels(data_dir, root, num_classes))
    raise IndexFileError(
        f"{plain(data_dir)} has neither {LISTS.format(split)} nor a folder {split} of class folders. Set "
        "DATA.PATH_TO_DATA_DIR to the folder of train and val"
    )


def read_image_class_names(data_dir: str | Path, prefix: str, num_classes: int) -> list[str] | None:
    """Return the names of the classes by label from categories.txt, or else the names of the class folders.

    Returns:
        The names; the label itself for a label without a folder. None if there is neither file nor folder.

    Raises:
        IndexFileError: If categories.txt is broken.
    """
    names = read_class_names(data_dir, num_classes)
    if names is not None or as_address(data_dir) or any(Path(data_dir).glob(LISTS.format("*"))):
        return names
    labels = _folder_labels(data_dir, _image_root(data_dir, prefix), num_classes)
    by_label = {label: folder for folder, label in labels.items()}
    return [by_label.get(label, str(label)) for label in range(num_classes)]


def _image_root(data_dir: str | Path, prefix: str) -> Path:
    """Return the folder that contains train/ and val/."""
    candidates = [Path(data_dir), Path(prefix)] if prefix else [Path(data_dir)]
    return next((root for root in candidates if _class_folders(root / "val")), candidates[0])


def _class_folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder; empty if it does not exist."""
    return inner_folders(folder) if folder.is_dir() else []


def _folder_labels(data_dir: str | Path, root: Path, num_classes: int) -> dict[str, int]:
    """Return the label of each class folder of train/ (or val/ if there is no train/); the same for all splits."""
    base = root / "train" if _class_folders(root / "train") else root / "val"
    folders = _class_folders(base)
    names = read_class_names(data_dir, num_classes) or []
    known = set(folders) & set(names)
    if known:
        unknown = sorted(set(folders) - known)
        if unknown:
            raise IndexFileError(
                f"{plain(base / unknown[0])}: {CLASS_NAMES_FILE} names other class folders but not this one"
            )
        return {name: label for label, name in enumerate(names)}
    if len(folders) > num_classes:
        raise IndexFileError(
            f"{plain(base)} has {len(folders)} class folders, but MODEL.NUM_CLASSES is {num_classes}. Set it to "
            f"{len(folders)}"
        )
    if len(folders) < num_classes:
        _warn_of_few(base, len(folders), num_classes)
    return {name: label for label, name in enumerate(folders)}


@functools.cache  # warn once for all splits
def _warn_of_few(base: Path, folders: int, num_classes: int) -> None:
    get_logger().warning(
        f"{plain(base)} has {folders} class folders for MODEL.NUM_CLASSES {num_classes}: their labels are 0 to "
        f"{folders - 1} in sorted order. If they are some of {num_classes} classes, list the names of all folders in "
        f"{CLASS_NAMES_FILE} in DATA.PATH_TO_DATA_DIR"
    )


def _read_folders(root: Path, split: str, labels: dict[str, int]) -> RecordTable:
    records = TableBuilder(root)
    skipped: list[str] = []
    for folder in _class_folders(root / split):
        if folder not in labels:
            raise IndexFileError(f"{plain(root / split / folder)}: no such class folder in {plain(root / 'train')}")
        files = walk_files(root / split / folder)
        names = [f"{split}/{folder}/{name}" for name in files if has_suffix(name, IMAGE_SUFFIXES)]
        skipped += [f"{folder}/{name}" for name in unrecognized(files, IMAGE_SUFFIXES)]
        records.extend(names, labels[folder])
        if not names:
            raise IndexFileError(
                f"{plain(root / split / folder)} contains no images (files ending in "
                f"{' '.join(sorted(IMAGE_SUFFIXES))}). Remove the folder or fill it"
            )
    note = skipped_note(root / split, skipped, IMAGE_SUFFIXES)
    if note is not None:
        get_logger().warning(note)
    return records.build()
