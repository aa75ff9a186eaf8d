"""`slowfast predict` with the tiny network and random weights, and the rows of the files that it writes."""

from __future__ import annotations

import csv
from pathlib import Path

from conftest import ROOT, tiny_settings

from slowfast.cli.main import main

EMPTY = str(ROOT / "tests" / "empty.yaml")


def settings(folder: Path) -> list[object]:
    return [*tiny_settings(folder / "none", folder / "out"), "DATA_LOADER.NUM_WORKERS", 0]


def predict(folder: Path, *words: object) -> tuple[int, Path]:
    """Run the command; return its status and OUTPUT_DIR."""
    return main(["predict", "--cfg", EMPTY, *map(str, words), *map(str, settings(folder))]), folder / "out"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def table(output: Path) -> list[dict[str, str]]:
    return rows_of(output / "predictions.csv")
