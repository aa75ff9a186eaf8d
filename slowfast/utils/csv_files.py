"""CSV files that are safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TextIO

from slowfast.utils.files import atomic_write_text
from slowfast.utils.text import escape, redact

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")  # also in full width


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a header and rows, completely or not at all."""
    text = io.StringIO(newline="")
    write = row_writer(text)
    write(header)
    for row in rows:
        write(row)
    atomic_write_text(path, text.getvalue())


def row_writer(file: TextIO) -> Callable[[Sequence[object]], object]:
    """Return a function that writes a row of a CSV file with LF line endings; cells are escaped by `csv_cell`."""
    plain = csv.writer(file, lineterminator="\n")
    quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: Sequence[object]) -> object:
        cells = [csv_cell(cell) for cell in row]
        has_semicolon = any(isinstance(cell, str) and ";" in cell for cell in cells)  # a separator in some locales
        return (quoted if has_semicolon else plain).writerow(cells)

    return write


def csv_cell(value: object) -> object:
    r"""Escape a cell so that no spreadsheet interprets it.

    Credentials in addresses are hidden. Backslashes are doubled; control characters become backslash escapes as in
    `escape`; text that a spreadsheet would evaluate as a formula, because it begins with one of ``= + - @``, is
    prefixed with a backslash. A backslash followed by another character than ``n r t x u`` therefore stands for that
    character, and every name can be recovered. Numbers are not changed.
    """
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return value
    text = escape(redact(value).replace("\\", r"\\"))
    return f"\\{text}" if text.lstrip()[:1] in _FORMULA else text
