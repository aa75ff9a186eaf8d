"""Lines of index files as positions in the bytes of the file, to process millions of lines efficiently.

N lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slowfast.errors import IndexFileError
from slowfast.utils.files import MIB
from slowfast.utils.paths import UnreadableTextError, file_in_sibling_folder, read_text_bytes
from slowfast.utils.text import did_you_mean, plain

MAX_BYTES = 1024 * MIB
MAX_LINE = 8192  # characters
_BLOCK = 1 << 16  # lines parsed at a time
_BLOCK_BYTES = 8 * MIB  # bytes searched at a time
_STEPS = 4  # white space characters stripped from all lines at once; longer runs are rare

# White space of str.strip() and str.split(): in ASCII, and the other characters as UTF-8.
_SPACE_BYTES = b"\t\n\v\f\r\x1c\x1d\x1e\x1f "
_SPACES = np.zeros(256, bool)
_SPACES[list(_SPACE_BYTES)] = True
_OTHER_SPACES = re.compile(
    rb"\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80"  # U+0085 to U+3000
)


@dataclass(frozen=True)
class Lines:
    """Stripped lines of a text.

    Attributes:
        codes: Bytes of the text, UTF-8, uint8.
        starts: First byte of each line, int64 (N,).
        ends: End of each line, int64 (N,).
        numbers: Numbers of the lines from 1, int64 (N,).
        in_ascii: Whether all white space of a line is ASCII, bool (N,).
    """

    codes: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray
    in_ascii: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, at: int) -> str:
        """Return a line."""
        return self.codes[self.starts[at] : self.ends[at]].tobytes().decode()

    def whole(self) -> str:
        """Return the text, with the white space around its lines."""
        return self.codes.tobytes().decode()

    def blocks(self) -> Iterator[Lines]:
        """Yield the lines in blocks; the positions of each count from its first byte."""
        for first in range(0, len(self), _BLOCK):
            chosen = slice(first, first + _BLOCK)
            start, end = int(self.starts[first]), int(self.ends[chosen][-1])
            starts, ends = self.starts[chosen] - start, self.ends[chosen] - start
            yield Lines(self.codes[start:end], starts, ends, self.numbers[chosen], self.in_ascii[chosen])


def scan_lines(path: str | Path, missing: str) -> Lines:
    """Find the lines of a file that are not blank.

    Args:
        path: Path or address of a regular file of UTF-8 text, with or without a byte order mark, with any line breaks.
        missing: Advice in the message if there is no such file.

    Raises:
        IndexFileError: If the file is missing or not such text, or a line contains a NUL character or is too long.
    """
    try:
        data = read_text_bytes(path, MAX_BYTES)
    except UnreadableTextError as error:
        problem = f"line {error.line}: not UTF-8 text. Save the file as UTF-8" if error.line else error.reason
        hint = f". {missing[:1].upper()}{missing[1:]}" if error.missing else ""
        near = did_you_mean(file_in_sibling_folder(path)) if error.missing else ""
        raise IndexFileError(f"{plain(path)} {problem}{hint}{near and '.'}{near}") from None
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines = _stripped(data)
    _check_lines(path, data, lines)
    return lines


def read_lines(path: str | Path, missing: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped, with their numbers from 1; see `scan_lines`."""
    lines = scan_lines(path, missing)
    return [(number, lines.text(at)) for at, number in enumerate(lines.numbers.tolist())]


def _stripped(data: bytes) -> Lines:
    codes = np.frombuffer(data, np.uint8)
    breaks = find_byte(codes, 10)
    starts, ends = np.append(0, breaks + 1), np.append(breaks, len(codes))
    in_ascii = np.ones(len(starts), bool)
    if not data.isascii():
        found = np.array([match.start() for match in _OTHER_SPACES.finditer(data)], np.int64)
        for at in np.unique(np.searchsorted(ends, found, side="right")).tolist():
            text = data[starts[at] : ends[at]].decode()
            in_ascii[at] = False
            ends[at] -= len(text[len(text.rstrip()) :].encode())
            starts[at] = min(starts[at] + len(text[: len(text) - len(text.lstrip())].encode()), ends[at])
    strip_right(codes, starts, ends)
    strip_left(codes, starts, ends)
    numbers = np.flatnonzero(starts < ends)
    return Lines(codes, starts[numbers], ends[numbers], numbers + 1, in_ascii[numbers])


def _check_lines(path: str | Path, data: bytes, lines: Lines) -> None:
    """Raise IndexFileError for the first line with a NUL character or too many characters."""
    doubtful = lines.ends - lines.starts > MAX_LINE
    if b"\0" in data:
        doubtful[np.searchsorted(lines.ends, find_byte(lines.codes, 0), side="right")] = True
    for at in np.flatnonzero(doubtful).tolist():
        line, where = lines.text(at), f"{plain(path)} line {lines.numbers[at]}"
        if "\0" in line:
            raise IndexFileError(f"{where}: contains a NUL character, so this is not a text file")
        if len(line) > MAX_LINE:
            raise IndexFileError(f"{where}: longer than {MAX_LINE} characters")


def find_byte(codes: np.ndarray, value: int) -> np.ndarray:
    """Return the positions of a byte, int64, in memory proportional to their number."""
    parts = [
        np.flatnonzero(codes[start : start + _BLOCK_BYTES] == value) + start
        for start in range(0, len(codes), _BLOCK_BYTES)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def find_text(codes: np.ndarray, text: bytes) -> np.ndarray:
    """Return the positions of a text in a block of bytes, int64."""
    size = len(codes) - len(text) + 1
    if not text or size <= 0:
        return np.zeros(0, np.int64)
    found = codes[:size] == text[0]
    for offset, value in enumerate(text[1:], start=1):
        found &= codes[offset : offset + size] == value
    return np.flatnonzero(found)


def find_spaces(codes: np.ndarray) -> np.ndarray:
    """Return the positions of ASCII white space in a block of bytes, int64."""
    return np.flatnonzero(_SPACES[codes])


def last_within(positions: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the last of ascending positions in each range [start, end), int64 (N,); -1 if there is none."""
    if not len(positions):
        return np.full(len(starts), -1, np.int64)
    at = np.searchsorted(positions, ends) - 1
    found = positions[np.maximum(at, 0)]
    return np.where((at >= 0) & (found >= starts), found, -1)


def count_within(positions: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the number of ascending positions in each range [start, end), int64 (N,)."""
    return np.searchsorted(positions, ends) - np.searchsorted(positions, starts)


def strip_left(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Move the starts of ranges past ASCII white space, in place."""
    at = np.flatnonzero(starts < ends)
    for _ in range(_STEPS):
        at = at[_SPACES[codes[starts[at]]]]
        starts[at] += 1
        at = at[starts[at] < ends[at]]
    for line in at.tolist():
        starts[line] = ends[line] - len(codes[starts[line] : ends[line]].tobytes().lstrip(_SPACE_BYTES))


def strip_right(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
    """Move the ends of ranges before ASCII white space, in place."""
    at = np.flatnonzero(starts < ends)
    for _ in range(_STEPS):
        at = at[_SPACES[codes[ends[at] - 1]]]
        ends[at] -= 1
        at = at[starts[at] < ends[at]]
    for line in at.tolist():
        ends[line] = starts[line] + len(codes[starts[line] : ends[line]].tobytes().rstrip(_SPACE_BYTES))


def parse_numbers(codes: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Parse numbers of 1 to 9 ASCII digits.

    Returns:
        The numbers, int64 (N,), and a mask of the ranges that contain one, bool (N,).
    """
    sizes = ends - starts
    valid = (sizes >= 1) & (sizes <= 9)
    values = np.zeros(len(starts), np.int64)
    for offset in range(int(sizes[valid].max(initial=0))):
        at = np.flatnonzero(valid & (sizes > offset))
        digits = codes[starts[at] + offset] - np.uint8(48)  # other characters wrap around to more than 9
        valid[at[digits > 9]] = False
        values[at] = values[at] * 10 + digits
    return values, valid
