"""Entries of index files: numbers, labels by task, paths, and the folders of samples."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.index.lines import count_within, find_text
from slowfast.datasets.sample_files import SCHEME, sample_exists
from slowfast.datasets.types import Record
from slowfast.errors import ConfigError, IndexFileError, system_reason
from slowfast.utils.paths import path_exists
from slowfast.utils.remote.address import FetchError, as_address
from slowfast.utils.text import plain

LABEL_SEPARATOR = ","  # separator between the classes of one sample


def index_exists(path: str | Path) -> bool:
    """Return whether a file next to the index exists. Raises IndexFileError if the server cannot be asked."""
    try:
        return path_exists(path)
    except FetchError as error:
        raise IndexFileError(f"{plain(path)} {error}") from None


def parse_number(text: str, what: str, below: int | None = None) -> int:
    """Parse a non-negative integer.

    Args:
        text: ASCII digits.
        what: Meaning of the number, for the message, such as "label".
        below: Exclusive upper bound; None for any number of up to 18 digits.

    Raises:
        ValueError: If the text is not such a number.
    """
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{what} {plain(text)} is not a non-negative integer")
    digits = text.lstrip("0") or "0"
    if len(digits) > 18 or (below is not None and int(digits) >= below):
        raise ValueError(f"{what} {plain(digits)} is out of range")
    return int(digits)


# Number of files checked for existence before an index is considered wrong.
_CHECKED = 300
_CHECKED_REMOTE = 3


class SampleRoot:
    """Folder or s3:// address that the paths of an index are relative to and must not leave, DATA.PATH_PREFIX.

    Paths are compared as text; symbolic links are not followed, so that a dataset may consist of links.

    Args:
        prefix: The folder; "" for the working directory, which paths may leave.

    Attributes:
        folder: Its absolute path or address.

    Raises:
        IndexFileError: If the folder does not exist.
    """

    def __init__(self, prefix: str) -> None:
        address = as_address(prefix)
        # pathlib, too, makes one slash of the two in an address.
        self.folder = os.path.normpath(address) if address else os.path.abspath(prefix)
        self._confined = bool(prefix)
        if address and not address.startswith(SCHEME):
            raise IndexFileError(
                f"DATA.PATH_PREFIX {plain(prefix)}: samples are read from folders and {SCHEME} addresses only"
            )
        if self._confined and not address and not os.path.isdir(self.folder):
            raise IndexFileError(
                f"DATA.PATH_PREFIX {plain(prefix)} is not a folder. Set it to the folder of the samples"
            )

    def locate(self, name: str) -> Path:
        """Return the path of a sample; ValueError if it is outside the prefix."""
        path = os.path.normpath(os.path.join(self.folder, name))
        inside = os.path.commonpath([path, self.folder]) == self.folder
        if self._confined and not inside:
            raise ValueError(f"the path leaves DATA.PATH_PREFIX {plain(self.folder)}")
        return Path(path)

    def surely_holds(self, codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Return a mask of names that are certainly inside the prefix, bool (N,); use `locate` for the others.

        Args:
            codes: Bytes that contain the names, uint8.
            starts: First byte of each name, int64 (N,).
            ends: End of each name, int64 (N,).
        """
        if not self._confined:
            return np.ones(len(starts), bool)
        inside = count_within(find_text(codes, b".."), starts, ends) == 0
        absolute = np.flatnonzero(starts < ends)  # an empty name may start after the last byte
        absolute = absolute[codes[starts[absolute]] == ord("/")]
        start = self.folder.rstrip("/").encode("utf-8", "surrogatepass") + b"/"
        below = ends[absolute] - starts[absolute] > len(start)
        for offset, value in enumerate(start):
            at = np.flatnonzero(below)
            below[at] = codes[starts[absolute[at]] + offset] == value
        inside[absolute[~below]] = False
        return inside


def check_samples_exist(records: Sequence[Record], index_file: str | Path) -> None:
    """Raise IndexFileError if none of the first few hundred files exists.

    Single missing files are reported when they are read.
    """
    remote = len(records) > 0 and bool(as_address(records[0].path))
    checked = list(itertools.islice(records, _CHECKED_REMOTE if remote else _CHECKED))
    try:
        found = any(sample_exists(record.path) for record in checked)
    except (FetchError, DecodeError) as error:
        raise IndexFileError(f"{plain(index_file)}: {plain(checked[0].path)}: {error}") from None
    if not found:
        raise IndexFileError(
            f"{plain(index_file)}: none of the first {len(checked)} files exist, such as "
            f"{plain(checked[0].path)}. Check DATA.PATH_PREFIX"
        )


def list_folder(folder: Path) -> list[str]:
    """Return the sorted names in a folder. Raises IndexFileError if it cannot be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise IndexFileError(f"{plain(folder)} cannot be listed ({system_reason(error)})") from None


def inner_folders(folder: Path) -> list[str]:
    """Return the sorted names of the folders in a folder, without hidden ones."""
    names = (name for name in list_folder(folder) if not name.startswith("."))
    return [name for name in names if os.path.isdir(os.path.join(folder, name))]


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    """Check whether a file name ends in one of the suffixes, which are in lower case with the dot."""
    return os.path.splitext(name)[1].lower() in suffixes


def walk_files(folder: Path) -> list[str]:
    """Return the files in a folder and its subfolders, without hidden ones.

    Returns:
        Sorted paths relative to the folder, with forward slashes.

    Raises:
        IndexFileError: If a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise IndexFileError(f"{plain(error.filename)} cannot be listed ({system_reason(error)})")

    names: list[str] = []
    for inner, _, files in os.walk(folder, onerror=refuse):
        start = "" if inner == os.fspath(folder) else f"{os.path.relpath(inner, folder)}/"
        names += [start + file for file in files if not file.startswith(".")]
    return sorted(names)


@dataclass(frozen=True)
class LabelFormat:
    """Format of the label at the end of a line of an index file.

    Attributes:
        parse: Function of the label's text and the number of classes (None: not checked) that returns the label: a
            class index, a tuple of them, or a float. It raises ValueError with the problem.
        expected: Description for error messages; ``{last}`` is replaced by the largest class index.
        several: True if a label may contain commas.
    """

    parse: Callable[[str, int | None], Any]
    expected: str
    several: bool = False


def parse_class(text: str, num_classes: int | None) -> int:
    """Return the class index of a label. Raises ValueError with the problem."""
    return parse_number(text, "label", num_classes)


def parse_classes(text: str, num_classes: int | None) -> tuple[int, ...]:
    """Return the class indices of a label such as ``3,17``, ascending. Raises ValueError with the problem."""
    labels = [parse_number(part, "label", num_classes) for part in text.split(LABEL_SEPARATOR)]
    if len(set(labels)) < len(labels):
        raise ValueError("a label is given twice")
    return tuple(sorted(labels))


ONE_CLASS = LabelFormat(parse_class, "a label from 0 to {last}")
CLASSES = LabelFormat(parse_classes, "labels from 0 to {last} joined by commas, such as 3,17", several=True)

# MODEL.TASK -> format, added when a task is registered; other tasks have one class per sample.
LABEL_FORMATS = {"multi_label": CLASSES}


def label_format(cfg: ConfigNode) -> LabelFormat:
    """Return the format of the labels of MODEL.TASK.

    Raises:
        ConfigError: If DATA.PATH_LABEL_SEPARATOR contains the comma that also separates the labels of a sample.
    """
    found = LABEL_FORMATS.get(cfg.MODEL.TASK, ONE_CLASS)
    if found.several and LABEL_SEPARATOR in cfg.DATA.PATH_LABEL_SEPARATOR:
        raise ConfigError(
            f"DATA.PATH_LABEL_SEPARATOR {cfg.DATA.PATH_LABEL_SEPARATOR!r}: with MODEL.TASK {cfg.MODEL.TASK} a comma "
            "separates the labels of a sample. Use another separator between path and labels, such as a space"
        )
    return found


def format_label(label: Any) -> str:
    """Return the text of a label as used in index files and predictions.csv."""
    return LABEL_SEPARATOR.join(map(str, label)) if isinstance(label, tuple) else str(label)


def classes_of(label: Any) -> tuple[int, ...]:
    """Return the classes of a label: one or several, or none for a label that is not a class index."""
    if isinstance(label, tuple):
        return label
    return (label,) if isinstance(label, int) else ()
