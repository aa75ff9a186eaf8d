"""Numbers, paths and folders of index files."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.index.lines import count_within, find_text
from slowfast.datasets.local_samples import SCHEME, sample_exists
from slowfast.datasets.types import Record
from slowfast.errors import IndexFileError, system_reason
from slowfast.utils.paths import path_exists
from slowfast.utils.remote.address import FetchError, as_address
from slowfast.utils.text import plain


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
        """Return which names are certainly inside the prefix, bool (N,); `locate` decides about the others.

        Args:
            codes: Bytes that contain the names, uint8.
            starts: First byte of each name, int64 (N,).
            ends: End of each name, int64 (N,).
        """
        if not self._confined:
            return np.ones(len(starts), bool)
        inside = count_within(find_text(codes, b".."), starts, ends) == 0
        first = np.minimum(starts, len(codes) - 1)  # an empty name may begin at the end of the file
        absolute = np.flatnonzero(codes[first] == ord("/"))
        start = self.folder.rstrip("/").encode("utf-8", "surrogatepass") + b"/"
        below = ends[absolute] - starts[absolute] > len(start)
        for offset, value in enumerate(start):
            at = np.flatnonzero(below)
            below[at] = codes[starts[absolute[at]] + offset] == value
        inside[absolute[~below]] = False
        return inside


def check_samples_exist(records: Sequence[Record], index_file: str | Path) -> None:
    """Raise IndexFileError if none of the first few hundred files exists.

    Single missing files fail when they are read and are counted then.
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
