"""Log of metrics during training: metrics.jsonl."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from slowfast.utils.files import atomic_write_text, disk_error
from slowfast.utils.logging import get_logger
from slowfast.utils.text_files import from_json, to_json

METRICS = "metrics.jsonl"  # file in OUTPUT_DIR
Row = dict[str, Any]


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of a log; damaged lines are skipped with a warning, an incomplete last line silently."""
    if not path.is_file():
        return []
    rows, damaged = [], []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        row = _parsed(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            damaged.append(number)
    if damaged:
        get_logger().warning(f"{path}: skipping {len(damaged)} damaged lines, the first of them line {damaged[0]}")
    return rows


def _parsed(line: str) -> Row | None:
    """Parse a line; None if it is not a row with a step number."""
    try:
        row = from_json(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class MetricsLog:
    """Writer of metrics.jsonl, which keeps the rows of the run that it resumes.

    Args:
        path: File to write.
        done_steps: Steps done so far; rows of later steps are dropped, because the steps will be repeated.

    Raises:
        DiskError: If the disk is full or cannot be written to; the file then ends with the last complete row.
    """

    def __init__(self, path: Path, done_steps: int) -> None:
        rows = [row for row in read_metrics(path) if row["step"] <= done_steps]
        atomic_write_text(path, "".join(_line(row) for row in rows), "OUTPUT_DIR")
        self._path = path
        self._file = path.open("ab", buffering=0)  # unbuffered, because closing must not repeat a failed write

    def write(self, row: Row) -> None:
        """Append a row; it has `split` (train or val), `epoch` and `step` (steps done since the start)."""
        line, size = _line(row).encode(), self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(size)
            raise disk_error(error, self._path, "OUTPUT_DIR") or error from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: Row) -> str:
    return to_json(row) + "\n"
