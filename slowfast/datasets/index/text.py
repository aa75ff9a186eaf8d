"""Reading of the text files of an index: their lines and the labels in them."""

from __future__ import annotations

from pathlib import Path

from slowfast.config.nearest import did_you_mean, file_in_sibling_folder
from slowfast.errors import IndexFileError
from slowfast.utils.quote import plain
from slowfast.utils.text_file import MIB, UnreadableTextError, read_text_file

MAX_BYTES = 1024 * MIB
MAX_LINE = 8192  # characters


def read_lines(path: Path, missing: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped, with their number from 1.

    Args:
        path: A regular file of UTF-8 text, with or without a byte order mark and with any line breaks.
        missing: What to do where there is no such file, for the message.

    Raises:
        IndexFileError: If the file is missing or no such text, or a line holds a NUL character or is too long.
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
            raise IndexFileError(f"{plain(path)} line {number}: contains a NUL character, so this is no text file")
        if len(line) > MAX_LINE:
            raise IndexFileError(f"{plain(path)} line {number}: longer than {MAX_LINE} characters")
    return lines


def parse_number(text: str, what: str, below: int | None = None) -> int:
    """Parse a whole number from 0 of a line; ValueError says what is wrong with it.

    Args:
        text: ASCII digits.
        what: What the number is, for the message, such as "label".
        below: The first number that is out of range; None for any of up to 18 digits.
    """
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{what} {plain(text)} is not a whole number from 0")
    digits = text.lstrip("0") or "0"
    if len(digits) > 18 or (below is not None and int(digits) >= below):
        raise ValueError(f"{what} {plain(digits)} is out of range")
    return int(digits)
