"""Parsing of many lines of an index at once.

Only lines of the usual form are parsed here; the readers parse all others one by one, with the same result. Ranges are
positions in the bytes of a block of lines.

N lines of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from slowfast.datasets.index.entries import LABEL_SEPARATOR, LabelFormat, parse_class, parse_classes
from slowfast.datasets.index.lines import (
    Lines,
    count_within,
    find_spaces,
    find_text,
    last_within,
    parse_numbers,
    strip_left,
    strip_right,
)
from slowfast.datasets.records import Labels, RecordTable, SeveralLabels

Ranges = tuple[np.ndarray, np.ndarray]  # starts and ends, int64 (N,)
_QUOTE, _COMMA = ord('"'), ord(LABEL_SEPARATOR)


@dataclass(frozen=True)
class Entry:
    """Sample of one line: name, label, and number of images if it is a folder of frames."""

    name: str
    label: Any
    frames: int = 0


def split_labeled_lines(lines: Lines, separator: str) -> tuple[Ranges, Ranges, np.ndarray]:
    """Split lines `path<separator>label`, the path with or without quotation marks.

    Returns:
        The ranges of the names and of the labels, and a mask of the lines that have them, bool (N,).
    """
    mark = separator.encode("utf-8", "surrogatepass")
    marks = find_text(lines.codes, mark)
    at = last_within(marks, lines.starts, lines.ends - len(mark) + 1)
    valid = lines.in_ascii & (at >= 0)
    at = np.where(valid, at, lines.starts)
    names, labels = (lines.starts.copy(), at), (np.minimum(at + len(mark), lines.ends), lines.ends.copy())
    if len(separator) == 1:
        _replace_quoted(lines, mark, marks, names, labels, valid)
    for ranges in (names, labels):
        strip_left(lines.codes, *ranges)
        strip_right(lines.codes, *ranges)
    return names, labels, valid & (names[0] < names[1])


def _replace_quoted(
    lines: Lines, mark: bytes, marks: np.ndarray, names: Ranges, labels: Ranges, valid: np.ndarray
) -> None:
    """Set the ranges of the lines that begin with a quotation mark, `"path"<separator>label` or both in quotes."""
    rows = np.flatnonzero(lines.codes[lines.starts] == _QUOTE)
    if not len(rows):
        return
    starts, ends = lines.starts[rows], lines.ends[rows]
    quotes = find_text(lines.codes, b'"')
    first, count = np.searchsorted(quotes, starts), count_within(quotes, starts, ends)
    # Up to four quotation marks of each line; missing ones are set to the end of the block.
    one, two, three, four = np.append(quotes, [len(lines.codes)] * 3)[first[:, None] + np.arange(4)].T
    separated = (two + 1 < ends) & (lines.codes[np.minimum(two + 1, len(lines.codes) - 1)] == mark[0])
    plain = (count == 2) & (count_within(marks, np.minimum(two + 2, ends), ends) == 0)
    both = (count == 4) & (three == two + 2) & (four == ends - 1)
    valid[rows] &= separated & (plain | both) & (len(mark) == 1) & (mark[0] != _QUOTE)
    names[0][rows], names[1][rows] = one + 1, np.where(valid[rows], two, one + 1)
    labels[0][rows] = np.where(valid[rows], np.where(both, two + 3, two + 2), ends)
    labels[1][rows] = np.where(valid[rows] & both, four, ends)


def split_frame_lines(lines: Lines) -> tuple[Ranges, Ranges, Ranges, np.ndarray]:
    """Split lines `folder frames label`.

    Returns:
        The ranges of the three fields, and a mask of the lines that have them, bool (N,).
    """
    spaces = find_spaces(lines.codes)
    ends, fields, valid = lines.ends.copy(), [], lines.in_ascii.copy()
    for _ in range(2):
        at = last_within(spaces, lines.starts, ends)
        valid &= at >= 0
        at = np.where(valid, at, lines.starts)
        fields.append((np.minimum(at + 1, ends), ends))
        ends = at.copy()
        strip_right(lines.codes, lines.starts, ends)
    label, frames = fields
    return (lines.starts, ends), frames, label, valid & (lines.starts < ends)


def parse_labels(
    codes: np.ndarray, texts: Ranges, valid: np.ndarray, num_classes: int, labels: LabelFormat
) -> Labels | None:
    """Parse the labels of lines; lines that may be invalid are cleared in `valid`, in place.

    Args:
        codes: Bytes of the block.
        texts: Ranges of the labels.
        valid: Lines to parse, bool (N,).
        num_classes: Number of classes.
        labels: Format of the labels.

    Returns:
        The labels, undefined for lines that are not valid; None if the format is neither one class nor several.
    """
    if labels.parse is parse_class:
        values, parsed = parse_numbers(codes, *texts)
        valid &= parsed & (values < num_classes)
        return values
    if labels.parse is parse_classes:
        return _parse_several(codes, texts, valid, num_classes)
    valid[:] = False
    return None


def _parse_several(codes: np.ndarray, texts: Ranges, valid: np.ndarray, num_classes: int) -> SeveralLabels:
    rows = np.flatnonzero(valid)
    starts, ends = texts[0][rows], texts[1][rows]
    commas = find_text(codes, bytes([_COMMA]))
    counts = count_within(commas, starts, ends)
    # Positions of the commas of each label, row by row.
    first = np.repeat(np.searchsorted(commas, starts) - np.cumsum(counts) + counts, counts)
    own = commas[first + np.arange(len(first))]
    line = np.repeat(np.arange(len(rows)), counts + 1)
    before, after = np.sort(np.concatenate([starts, own + 1])), np.sort(np.concatenate([ends, own]))
    values, parsed = parse_numbers(codes, before, after)
    order = np.lexsort((values, line))
    values = values[order]
    twice = (np.diff(values, prepend=-1) == 0) & (np.diff(line, prepend=-1) == 0)
    wrong = line[twice | ~parsed[order] | (values >= num_classes)]
    valid[rows[wrong]] = False
    sizes = np.zeros(len(valid), np.int64)
    sizes[rows] = counts + 1
    return SeveralLabels(values, np.cumsum(sizes))


class Columns:
    """Columns of the samples of a file, which are filled block by block.

    Args:
        lines: All lines of the file.
    """

    def __init__(self, lines: Lines) -> None:
        self._codes, self._first = lines.codes, lines.starts
        self._starts = np.empty(len(lines), np.int64)
        self._lengths = np.empty(len(lines), np.uint32)
        self._others = bytearray()  # names that differ from the text of the file
        self._labels: list[Labels] = []
        self._frames: list[np.ndarray] = []
        self._filled = 0

    def add(
        self,
        block: Lines,
        names: Ranges,
        labels: Labels | None,
        valid: np.ndarray,
        parse: Callable[[str, int], Entry],
        frames: np.ndarray | None = None,
    ) -> None:
        """Add the samples of the next block of lines.

        Args:
            block: The lines.
            names: Ranges of the names.
            labels: Labels of the valid lines.
            valid: Lines whose ranges and values are known, bool (N,).
            parse: Function of a line and its number that parses any other line or raises IndexFileError.
            frames: Numbers of images of the valid lines.
        """
        chosen = slice(self._filled, self._filled + len(block))
        offset = int(self._first[self._filled])
        self._starts[chosen], self._lengths[chosen] = names[0] + offset, names[1] - names[0]
        others = {at: parse(block.text(at), int(block.numbers[at])) for at in np.flatnonzero(~valid).tolist()}
        for at, entry in others.items():
            name = entry.name.encode("utf-8", "surrogatepass")
            self._starts[self._filled + at] = len(self._codes) + len(self._others)
            self._lengths[self._filled + at] = len(name)
            self._others += name
            if frames is not None:
                frames[at] = entry.frames
        self._labels.append(_with_others(labels, len(block), {at: entry.label for at, entry in others.items()}))
        if frames is not None:
            self._frames.append(frames.astype(np.int32))
        self._filled += len(block)

    def table(self, folder: str) -> RecordTable:
        """Return the table of all samples, whose names are relative to a folder."""
        text = self._codes
        if self._others:
            text = np.concatenate([text, np.frombuffer(bytes(self._others), np.uint8)])
        starts = self._starts.astype(np.uint32) if len(text) < 2**32 else self._starts
        frames = np.concatenate(self._frames) if self._frames else None
        return RecordTable(folder, text, starts, self._lengths, _joined(self._labels), frames)


def _with_others(labels: Labels | None, count: int, others: dict[int, Any]) -> Labels:
    """Return the labels of a block, including those of lines that were parsed one by one."""
    if labels is None:
        return [others[at] for at in range(count)]
    if isinstance(labels, np.ndarray):
        labels[list(others)] = list(others.values())
        return labels
    if not others or isinstance(labels, list):
        return labels
    parts = [others[at] if at in others else labels.at(at) for at in range(count)]
    return SeveralLabels(np.array([c for part in parts for c in part], np.int64), np.cumsum([len(p) for p in parts]))


def _joined(parts: list[Labels]) -> Labels:
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if arrays:
        return np.concatenate(arrays)
    several = [part for part in parts if isinstance(part, SeveralLabels)]
    if not several:
        return [label for part in parts if isinstance(part, list) for label in part]
    offsets = np.cumsum([0, *(len(part.classes) for part in several)])
    ends = [part.ends + offset for part, offset in zip(several, offsets, strict=False)]
    return SeveralLabels(np.concatenate([part.classes for part in several]), np.concatenate(ends))
