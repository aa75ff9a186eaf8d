"""CSV and JSON: parsing, safe formatting and atomic writing of files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import simplejson

from slowfast.utils.files import atomic_write_text
from slowfast.utils.text import escape, redact

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")  # also in full width
_ESCAPED = re.compile(r"\\([^nrtxu])", re.DOTALL)  # see `csv_cell`
_JSON_SPACES = re.compile(r"[ \t\n\r]*")


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


def create_csv(path: Path, heading: Sequence[object]) -> TextIO:
    """Create a CSV file with a heading, in an existing or new folder, for rows of :func:`row_writer`.

    An earlier file is deleted instead of truncated, because another process may still write to it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    # surrogateescape: file names need not be valid text
    file = path.open("x", encoding="utf-8", errors="surrogateescape", newline="")
    row_writer(file)(heading)
    return file


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


def read_csv(text: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file written by `write_csv` as dicts, without the backslashes that disable formulas.

    Control characters stay escaped. A short row lacks its last columns; extra cells are dropped.

    Raises:
        ValueError: If the text is not CSV.
    """
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    header, *rows = lines or [[]]
    if "\\" in text:
        rows = [[_ESCAPED.sub(r"\1", cell) for cell in row] for row in rows]
    return [dict(zip(header, row, strict=False)) for row in rows if row]


def to_json(content: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Return content as JSON, on one line unless an indent is given."""
    return str(simplejson.dumps(content, ignore_nan=True, indent=indent, sort_keys=sort_keys))


def from_json(text: str | bytes) -> Any:
    """Parse JSON; NaN and the infinities are accepted.

    Raises:
        simplejson.JSONDecodeError: If the text is not JSON; a ValueError with the position of the mistake.
        ValueError: If a number is too long.
        RecursionError: If it is nested too deeply.
    """
    return simplejson.loads(text, allow_nan=True)


def iter_json_list(text: str) -> Iterator[Any]:
    """Parse the items of a JSON list one by one, using the memory of one item.

    Raises:
        ValueError: If the text may not be a JSON list; `from_json` then returns the content or raises the error.
        RecursionError: If an item is nested too deeply.
    """
    decoder = simplejson.JSONDecoder(allow_nan=True)
    at = _after_spaces(text, 0)
    if not text.startswith("[", at) or "\ufeff" in text:  # the decoder would skip a byte order mark
        raise ValueError("not a list")
    while True:
        item, at = decoder.raw_decode(text, at + 1)
        yield item
        at = _after_spaces(text, at)
        if not text.startswith(",", at):
            break
    if not text.startswith("]", at) or _after_spaces(text, at + 1) < len(text):
        raise ValueError("not a list")


def _after_spaces(text: str, at: int) -> int:
    """Return the first position at or after `at` that is not JSON white space."""
    found = _JSON_SPACES.match(text, at)
    return at if found is None else found.end()


def write_json(path: Path, content: Any, setting: str = "") -> None:
    """Write a JSON file for users: indented, and without the credentials in addresses.

    Args:
        path: File to write, completely or not at all.
        content: Mappings, sequences, text and numbers.
        setting: Config key that names the folder, for error messages.
    """
    atomic_write_text(path, to_json(_redacted(content), indent=2) + "\n", setting)


def _redacted(content: Any) -> Any:
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, Mapping):
        return {_redacted(key): _redacted(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_redacted(item) for item in content]
    return content
