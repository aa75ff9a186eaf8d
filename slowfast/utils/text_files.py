"""Text, CSV and JSON files: safe reading and atomic writing."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import simplejson

from slowfast.errors import system_reason
from slowfast.utils.files import MIB, atomic_write_text
from slowfast.utils.paths import local_path
from slowfast.utils.remote.address import FetchError, RemoteFileMissing
from slowfast.utils.text import escape, redact

_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "is a named pipe, not a regular file",
    stat.S_IFSOCK: "is a socket, not a regular file",
    stat.S_IFCHR: "is a device, not a regular file",
    stat.S_IFBLK: "is a device, not a regular file",
}
_DECODED = 4 * MIB  # bytes checked at a time
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORMULA = frozenset("=+-@\uff1d\uff0b\uff0d\uff20")  # also in full width
_ESCAPED = re.compile(r"\\([^nrtxu])", re.DOTALL)  # see `csv_cell`
_JSON_SPACES = re.compile(r"[ \t\n\r]*")


def irregular_kind(mode: int) -> str:
    """Return the kind of an irregular file, such as "is a directory"; an empty string for a regular file.

    Args:
        mode: `st_mode` of its status.
    """
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "is not a regular file")


def why_not_regular(path: str | Path) -> str:
    """Return why a path is not a readable regular file, such as "does not exist"; an empty string if it is one.

    Args:
        path: A local path, or an address for :mod:`slowfast.utils.paths`.
    """
    try:
        return irregular_kind(os.stat(local_path(path)).st_mode)
    except FetchError as error:
        return str(error)
    except PermissionError:
        return "is in a folder without access"
    except (OSError, ValueError):  # ValueError: invalid file name
        return "does not exist"


class UnreadableTextError(Exception):
    """Error of :func:`read_text_file`.

    Args:
        reason: Description to follow the file name, such as "does not exist".
        missing: Whether the file does not exist.
        line: Number of the offending line from 1; 0 if unknown.
    """

    def __init__(self, reason: str, *, missing: bool = False, line: int = 0) -> None:
        super().__init__(reason)
        self.reason, self.missing, self.line = reason, missing, line


def read_text_file(path: str | Path, max_bytes: int) -> str:
    """Read a UTF-8 text file without its byte order mark; see `read_text_bytes`."""
    return read_text_bytes(path, max_bytes).decode()


def read_text_bytes(path: str | Path, max_bytes: int) -> bytes:
    """Read the bytes of a UTF-8 text file, without its byte order mark.

    Pipes, devices and sockets are refused before they are opened, because reading them may never end.

    Args:
        path: A local path, or an address for :mod:`slowfast.utils.paths`.
        max_bytes: Size limit.

    Raises:
        UnreadableTextError: If the file is missing, not regular, larger than `max_bytes`, unreadable or not UTF-8 text.
    """
    try:
        data = _read_regular_file(os.fspath(local_path(path)), max_bytes)
    except FetchError as error:
        raise UnreadableTextError(str(error), missing=isinstance(error, RemoteFileMissing)) from None
    except FileNotFoundError:
        raise UnreadableTextError("does not exist", missing=True) from None
    except NotADirectoryError:
        raise UnreadableTextError("does not exist (a part of the path is a file)", missing=True) from None
    except OSError as error:
        raise UnreadableTextError(f"cannot be read ({system_reason(error)})") from None
    except ValueError:  # a NUL character, or characters that file names cannot contain
        raise UnreadableTextError("is not a valid file name") from None
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableTextError("is UTF-16 text, not UTF-8")
    _check_utf8(data)
    return data.removeprefix(codecs.BOM_UTF8)


def _check_utf8(data: bytes) -> None:
    """Raise UnreadableTextError unless the bytes are UTF-8; checked in blocks, as decoded text takes 4x memory."""
    start = len(data) if data.isascii() else 0
    while start < len(data):
        end = start + _DECODED
        while start + _DECODED - 4 < end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1  # back to the first byte of a character
        try:
            str(memoryview(data)[start:end], "utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, start + error.start) + 1
            raise UnreadableTextError("is not UTF-8 text", line=line) from None
        start = end


def _read_regular_file(path: str, max_bytes: int) -> bytes:
    _refuse_irregular(os.stat(path), max_bytes)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        _refuse_irregular(os.fstat(descriptor), max_bytes)
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:  # it has grown, or is a file of /proc, whose size is 0
        raise UnreadableTextError(_too_large(max_bytes))
    return data


def _refuse_irregular(status: os.stat_result, max_bytes: int) -> None:
    if wrong := irregular_kind(status.st_mode):
        raise UnreadableTextError(wrong)
    if status.st_size > max_bytes:
        raise UnreadableTextError(_too_large(max_bytes))


def _too_large(max_bytes: int) -> str:
    return f"is larger than {max_bytes // MIB} MiB"


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
