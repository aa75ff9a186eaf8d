"""Lists of video sources: text files with one video, camera or stream per line, optionally with a name.

A line is ``place`` or ``name = place``. Blank lines, lines that start with ``#``, and text after a space and ``#`` are
ignored. The scheme of an address contains no ``=``, so that a line whose first ``=`` follows ``://`` is a bare address.
"""

from __future__ import annotations

import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from slowfast.datasets.index.lines import read_lines
from slowfast.errors import DataError
from slowfast.event_driven.checks import is_address, is_camera
from slowfast.utils.text import plain

MAX_NAME = 64  # characters; file names of 4 bytes per character fit every file system, with a suffix
_COMMENT = re.compile(r"\s#.*")
_NOT_IN_NAMES = '/\\:*?"<>|'  # characters that some systems refuse in file names
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)  # not a file name on Windows


@dataclass(frozen=True)
class ListedSource:
    """Line of a list.

    Attributes:
        number: Number of the line, from 1.
        name: Name of the source; "" if the line has none.
        place: File, number of a camera, or address of a stream.
    """

    number: int
    name: str
    place: str


def read_list(path: Path) -> list[ListedSource]:
    """Read a list of sources.

    Raises:
        DataError: If the file is not text, a line names no source, or a name is invalid or used twice.
    """
    listed: list[ListedSource] = []
    taken: dict[str, int] = {}  # line of each name
    for number, line in read_lines(path, "list one video, camera or stream per line"):
        if line.startswith("#"):
            continue
        where = f"{path} line {number}"
        name, place = _split(path.parent, line)
        if not _is_place(path.parent, place):
            raise DataError(f"{where}: {plain(place)} is not a file, camera number or stream address")
        if name is not None:
            _check_name(where, name)
            first = taken.setdefault(_normalized(name), number)
            if first != number:
                raise DataError(
                    f"{where}: the name {plain(name)} is that of line {first}. Give each source its own name"
                )
        listed.append(ListedSource(number, name or "", place))
    if not listed:
        raise DataError(f"{path}: the list contains no video, camera or stream")
    return listed


def _split(folder: Path, line: str) -> tuple[str | None, str]:
    """Return the name (None if there is none) and the place of a line."""
    if _is_place(folder, line):  # a file name may contain "=" and "#"
        return None, line
    line = _COMMENT.sub("", line)
    name, equals, place = line.partition("=")
    if not equals or _is_place(folder, line):
        return None, line
    return name.strip(), place.strip()


def _is_place(folder: Path, text: str) -> bool:
    return is_camera(text) or is_address(text) or os.path.isfile(folder / text)  # also False for invalid names


def _check_name(where: str, name: str) -> None:
    """Raise DataError for a name that cannot be used in file names, tables and images."""
    if not name:
        raise DataError(f"{where}: the name before '=' is empty. Write name = address, or the address alone")
    wrong = [character for character in name if character in _NOT_IN_NAMES or not character.isprintable()]
    if wrong:
        raise DataError(f"{where}: the name {plain(name)} contains {wrong[0]!r}. Files are named after it: remove it")
    if len(name) > MAX_NAME:
        raise DataError(f"{where}: the name has {len(name)} characters. Shorten it to at most {MAX_NAME}")
    if name.startswith(".") or name.endswith(".") or _DEVICE.fullmatch(name):
        raise DataError(f"{where}: {plain(name)} is not a valid file name on all systems. Choose another name")


def _normalized(name: str) -> str:
    """Return the normalized form of a name, for comparison on file systems that ignore case."""
    return unicodedata.normalize("NFC", name.casefold())
