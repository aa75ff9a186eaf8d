"""OUTPUT_DIR/metrics.jsonl: one JSON object a logged training step or validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import simplejson

from slowfast.runtime.unfinished import write_whole

Row = dict[str, Any]


def read_metrics(path: Path) -> list[Row]:
    """The rows of a log; a last line torn by a killed process is left out."""
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


class MetricsLog:
    """Appends rows; going on from a checkpoint first drops the rows of steps that will be done again."""

    def __init__(self, path: Path, done_steps: int) -> None:
        rows = [row for row in read_metrics(path) if row["step"] <= done_steps]
        write_whole(path, "".join(_line(row) for row in rows))
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Row) -> None:
        """Append a row; it has `split` (train or val), `epoch` and `step` (steps done since the start)."""
        self._file.write(_line(row))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: Row) -> str:
    # ignore_nan: JSON has no NaN; it becomes null
    return str(simplejson.dumps(row, ignore_nan=True)) + "\n"
