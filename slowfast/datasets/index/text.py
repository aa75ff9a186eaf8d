"""Reading the text files of an index."""

from __future__ import annotations

from pathlib import Path

from slowfast.errors import IndexFileError


def read_lines(path: Path, missing: str) -> list[tuple[int, str]]:
    """Lines that are not blank, with their number from 1, stripped; a byte order mark is left out.

    Raises IndexFileError for a file that is not there (`missing` says what to do), unreadable or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise IndexFileError(f"{path} does not exist; {missing}") from error
    except OSError as error:
        raise IndexFileError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise IndexFileError(f"{path} line {line}: not UTF-8 text; save the file as UTF-8") from error
    return [(number, line.strip()) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
