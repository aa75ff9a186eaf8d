"""OUTPUT_DIR/metrics.jsonl: one JSON object a logged training step or validation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import simplejson

from slowfast.runtime.logging import get_logger
from slowfast.runtime.unfinished import disk_error, write_whole

Row = dict[str, Any]


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of a log; a last line torn by a killed process and damaged lines, which are reported, are not."""
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
        get_logger().warning(f"{path}: skipping {len(damaged)} damaged lines, the first is line {damaged[0]}")
    return rows


def _parsed(line: str) -> Row | None:
    """Parse a line; None if it is no row with the number of a step."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class MetricsLog:
    """Log of rows, appended one by one; resuming from a checkpoint drops the rows of steps that will be repeated.

    Raises:
        DiskError: If the disk does not take a row. No part of the row stays in the file.
    """

    def __init__(self, path: Path, done_steps: int) -> None:
        rows = [row for row in read_metrics(path) if row["step"] <= done_steps]
        write_whole(path, "".join(_line(row) for row in rows), "OUTPUT_DIR")
        self._path = path
        self._file = path.open("ab", buffering=0)  # a buffer would try again, and fail again, when it is closed

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
    # ignore_nan: JSON has no NaN; it becomes null
    return str(simplejson.dumps(row, ignore_nan=True)) + "\n"
