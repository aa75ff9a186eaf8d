"""Kinetics index: a csv file per split with a line `path<separator>label` per video, and optional class names."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from slowfast.datasets.index.common import SampleRoot, check_samples_exist, index_exists, parse_number
from slowfast.datasets.index.labels import LABEL_SEPARATOR, ONE_CLASS, LabelFormat, format_label
from slowfast.datasets.index.lines import read_lines, scan_lines
from slowfast.datasets.index.parse import Columns, Entry, parse_labels, split_labelled_lines
from slowfast.datasets.records import RecordTable
from slowfast.errors import IndexFileError
from slowfast.utils.remote.address import join_path
from slowfast.utils.text import plain, quoted

CLASS_NAMES_FILE = "categories.txt"
_QUOTE = '"'
_USUAL_SEPARATORS = (" ", ",", "\t", ";")


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
    return read_labelled_paths(file, hint, SampleRoot(prefix), separator, num_classes, labels)


def read_labelled_paths(
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
        names, texts, valid = split_labelled_lines(block, separator)
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
    name, label = split_line(line, separator)
    if labels.several and name.endswith(LABEL_SEPARATOR):
        raise ValueError("a space between labels")
    return name, labels.parse(label, num_classes)


def split_line(line: str, separator: str) -> tuple[str, str]:
    """Return path and label text of one line. Raises ValueError with the problem."""
    if line.startswith(_QUOTE) and len(separator) == 1:
        name, label = _parse_quoted(line, separator)
    else:
        name, found, label = line.rpartition(separator)
        if not found:
            raise ValueError("no label")
    name = name.strip()
    if not name:
        raise ValueError("no path")
    return name, label.strip()


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
