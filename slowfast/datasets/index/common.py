"""Lines and paths of index files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError, system_reason
from slowfast.utils.paths import path_exists
from slowfast.utils.remote.address import FetchError
from slowfast.utils.suggest import did_you_mean, file_in_sibling_folder
from slowfast.utils.text import plain
from slowfast.utils.text_files import MIB, UnreadableTextError, read_text_file

MAX_BYTES = 1024 * MIB
MAX_LINE = 8192  # characters


def read_lines(path: str | Path, missing: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped, with their numbers from 1.

    Args:
        path: Path or address of a regular file of UTF-8 text, with or without a byte order mark, with any line breaks.
        missing: Advice in the message if there is no such file.

    Raises:
        IndexFileError: If the file is missing or not such text, or a line contains a NUL character or is too long.
    """
    try:
        text = read_text_file(path, MAX_BYTES)
    except UnreadableTextError as error:
        problem = f"line {error.line}: not UTF-8 text. Save the file as UTF-8" if error.line else error.reason
        hint = f". {missing[:1].upper()}{missing[1:]}" if error.missing else ""
        near = did_you_mean(file_in_sibling_folder(path)) if error.missing else ""
        raise IndexFileError(f"{plain(path)} {problem}{hint}{near and '.'}{near}") from None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    for number, line in lines:
        if "\0" in line:
            raise IndexFileError(f"{plain(path)} line {number}: contains a NUL character, so this is not a text file")
        if len(line) > MAX_LINE:
            raise IndexFileError(f"{plain(path)} line {number}: longer than {MAX_LINE} characters")
    return lines


def index_exists(path: str | Path) -> bool:
    """Return whether a file beside the index exists. Raises IndexFileError if its server cannot tell."""
    try:
        return path_exists(path)
    except FetchError as error:
        raise IndexFileError(f"{plain(path)} {error}") from None


def parse_number(text: str, what: str, below: int | None = None) -> int:
    """Parse a non-negative integer.

    Args:
        text: ASCII digits.
        what: Meaning of the number, for the message, such as "label".
        below: Smallest number that is out of range; None for any of up to 18 digits.

    Raises:
        ValueError: If the text is not such a number.
    """
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{what} {plain(text)} is not a non-negative integer")
    digits = text.lstrip("0") or "0"
    if len(digits) > 18 or (below is not None and int(digits) >= below):
        raise ValueError(f"{what} {plain(digits)} is out of range")
    return int(digits)


# Files checked for existence before an index counts as wrong.
_CHECKED = 300


class SampleRoot:
    """Folder that the paths of an index are relative to and must not leave, DATA.PATH_PREFIX.

    Paths are compared as text; symbolic links are not followed, so that a dataset may consist of links.

    Args:
        prefix: The folder; "" for the working directory, which paths may leave.

    Raises:
        IndexFileError: If the folder does not exist.
    """

    def __init__(self, prefix: str) -> None:
        self._folder = os.path.abspath(prefix)
        self._confined = bool(prefix)
        if self._confined and not os.path.isdir(self._folder):
            raise IndexFileError(
                f"DATA.PATH_PREFIX {plain(prefix)} is not a folder. Set it to the folder of the samples"
            )

    def locate(self, name: str) -> Path:
        """Return the path of a sample; ValueError if it is outside the prefix."""
        path = os.path.normpath(os.path.join(self._folder, name))
        inside = os.path.commonpath([path, self._folder]) == self._folder
        if self._confined and not inside:
            raise ValueError(f"the path leaves DATA.PATH_PREFIX {plain(self._folder)}")
        return Path(path)


def check_samples_exist(records: Sequence[Record], index_file: str | Path) -> None:
    """Raise IndexFileError if none of the first few hundred files exists.

    Single missing files fail when they are read and are counted then.
    """
    checked = list(itertools.islice(records, _CHECKED))
    if not any(os.path.exists(record.path) for record in checked):  # False for impossible names, too
        raise IndexFileError(
            f"{plain(index_file)}: none of the first {len(checked)} files exist, such as "
            f"{plain(checked[0].path)}. Check DATA.PATH_PREFIX"
        )


def list_folder(folder: Path) -> list[str]:
    """Return the sorted names in a folder; IndexFileError if it cannot be listed."""
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


def walk_files(folder: Path, suffixes: Collection[str] | None = None) -> list[str]:
    """Return the files in a folder and its subfolders, without hidden ones.

    Args:
        folder: The folder.
        suffixes: Suffixes of the files to return; None for all files.

    Returns:
        Sorted paths relative to the folder, with forward slashes.

    Raises:
        IndexFileError: If a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise IndexFileError(f"{plain(error.filename)} cannot be listed ({system_reason(error)})")

    names: list[str] = []
    for inner, _, files in os.walk(folder, onerror=refuse):
        relative = os.path.relpath(inner, folder).replace(os.sep, "/")
        start = "" if relative == "." else f"{relative}/"
        chosen = (file for file in files if suffixes is None or has_suffix(file, suffixes))
        names += [start + file for file in chosen if not file.startswith(".")]
    return sorted(names)
