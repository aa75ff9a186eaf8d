"""Rows of the CSV files that commands write."""

from __future__ import annotations

import csv
from pathlib import Path


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file with a header, by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_reasons(path: Path) -> dict[str, str]:
    """Return the reasons in a list of failures, by path."""
    return {row["path"]: row["reason"] for row in read_rows(path)}
