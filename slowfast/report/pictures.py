"""The pictures that a run leaves in OUTPUT_DIR; without matplotlib, one warning instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from slowfast.datasets.media_dataset import TestMedia
from slowfast.datasets.types import TestMedium
from slowfast.report.confusion import draw_confusion
from slowfast.report.contact_sheet import ClipRow, draw_contact_sheet
from slowfast.report.curves import draw_curves
from slowfast.report.results import VideoPrediction
from slowfast.runtime.logging import get_logger

SHEET_ROWS = 10


def draw_training_curves(output: Path) -> dict[str, Path]:
    """Draw metrics.jsonl; gives what was drawn and where."""
    picture = output / "curves.png"
    return _drawn("training curves", picture, lambda: draw_curves(output / "metrics.jsonl", picture))


def draw_test_pictures(
    output: Path, dataset: TestMedia, predictions: Sequence[VideoPrediction], names: Sequence[str]
) -> dict[str, Path]:
    """Draw the confusion matrix and a contact sheet of test clips; gives what was drawn and where."""
    confusion, sheet = output / "confusion.png", output / "contact_sheet.png"
    labels, answers = [p.label for p in predictions], [p.prediction for p in predictions]
    drawn = _drawn("confusion matrix", confusion, lambda: draw_confusion(labels, answers, names, confusion))
    if drawn:  # without pictures no clip need be decoded for them
        drawn |= _drawn("contact sheet", sheet, lambda: draw_contact_sheet(_rows(dataset, predictions, names), sheet))
    return drawn


def choose(predictions: Sequence[VideoPrediction], count: int) -> list[VideoPrediction]:
    """Up to `count` videos that were read, at most half of them wrong ones, evenly spread over the test set."""
    read = [p for p in predictions if p.best]
    wrong = _spread([p for p in read if not p.hit(1)], count // 2)
    right = _spread([p for p in read if p.hit(1)], count - len(wrong))
    return sorted([*wrong, *right], key=lambda p: p.index)


def _spread(items: list[VideoPrediction], count: int) -> list[VideoPrediction]:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)
    return [items[place] for place in places]


def _rows(dataset: TestMedia, predictions: Sequence[VideoPrediction], names: Sequence[str]) -> list[ClipRow]:
    return [_row(dataset[p.index], p, names) for p in choose(predictions, SHEET_ROWS)]


def _row(video: TestMedium, prediction: VideoPrediction, names: Sequence[str]) -> ClipRow:
    if not video.count:
        raise RuntimeError(f"{prediction.name} was readable in the test and is not any more")
    answer, score = prediction.best[0]
    return ClipRow(prediction.name, video.picture(), names[prediction.label], names[answer], score)


def _drawn(what: str, picture: Path, draw: Callable[[], None]) -> dict[str, Path]:
    """Draw a figure; one that cannot be drawn for any reason is a warning, as it must not cost a run its results."""
    try:
        draw()
    except Exception as error:
        get_logger().warning(f"{picture.name} is not drawn: {error}")
        return {}
    return {what: picture}
