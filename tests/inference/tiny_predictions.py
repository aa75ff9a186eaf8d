"""`slowfast predict` with the tiny network and random weights, and the rows of the files that it writes."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT, tiny_settings

from slowfast.cli.main import main
from tests.csv_files import read_rows

EMPTY = str(ROOT / "tests" / "empty.yaml")


def settings(folder: Path) -> list[object]:
    return [*tiny_settings(folder / "none", folder / "out"), "DATA_LOADER.NUM_WORKERS", 0]


def predict(folder: Path, *words: object) -> tuple[int, Path]:
    """Run the command; return its status and OUTPUT_DIR."""
    return main(["predict", "--cfg", EMPTY, *map(str, words), *map(str, settings(folder))]), folder / "out"


def table(output: Path) -> list[dict[str, str]]:
    return read_rows(output / "predictions.csv")
