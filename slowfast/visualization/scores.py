"""File with the logits of all classes of a test, as TEST.SAVE_RESULTS_PATH says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.labels import classes_of
from slowfast.errors import ConfigError, UserError
from slowfast.utils.files import atomic_path, reporting_file
from slowfast.utils.logging import get_logger
from slowfast.utils.paths import check_output_file
from slowfast.visualization.results import VideoPrediction

KEY, SUFFIX = "TEST.SAVE_RESULTS_PATH", ".npz"
PICKLES = (".pkl", ".pickle")


def scores_path(cfg: ConfigNode) -> Path | None:
    """Return the path of the file; None if TEST.SAVE_RESULTS_PATH is empty.

    A relative path is relative to OUTPUT_DIR, as in the published code. Pickle files are never written: their suffix is
    replaced by .npz.
    """
    setting = cfg.TEST.SAVE_RESULTS_PATH
    if not setting:
        return None
    path = Path(cfg.OUTPUT_DIR) / setting
    if path.suffix.lower() == SUFFIX:
        return path
    return path.with_suffix(SUFFIX) if path.suffix.lower() in PICKLES else path.with_name(path.name + SUFFIX)


def check_scores_path(cfg: ConfigNode) -> None:
    """Raise ConfigError if TEST.SAVE_RESULTS_PATH cannot be written."""
    path = scores_path(cfg)
    if path is None:
        return
    try:
        check_output_file(path, KEY, (SUFFIX,))
    except UserError as error:
        raise ConfigError(str(error)) from None


def write_scores(predictions: Sequence[VideoPrediction], num_classes: int, path: Path, setting: str) -> None:
    """Write the arrays ``names`` (N,), ``labels`` and ``logits`` float32 (N, K).

    ``labels`` are class indices int64 (N,), or multi-hot int64 (N, K) if a sample may have several.

    Args:
        predictions: Predictions with their logits; the row of an unreadable video is NaN.
        num_classes: K.
        path: File to write, completely or not at all.
        setting: Value of TEST.SAVE_RESULTS_PATH, for the notice if it names another type of file.

    Raises:
        DiskError: If the disk is full or cannot be written to.
    """
    ordered = sorted(predictions, key=lambda video: video.index)
    logits = np.full((len(ordered), num_classes), np.nan, np.float32)
    for row, video in zip(logits, ordered, strict=True):
        if video.logits is not None:
            row[:] = video.logits
    names = np.array([video.name for video in ordered], dtype=np.str_)
    labels = _label_array([video.label for video in ordered], num_classes)
    with atomic_path(path, suffix=SUFFIX, setting=KEY) as part, reporting_file(part) as file:
        np.savez(file, names=names, labels=labels, logits=logits)
    if Path(setting).suffix.lower() != SUFFIX:
        get_logger().info(f"{KEY} {setting}: saved as {path} (arrays names, labels, logits), not as a pickle")


def _label_array(labels: Sequence[Any], num_classes: int) -> np.ndarray:
    """Return class indices int64 (N,), or the multi-hot array int64 (N, K) of tuples of them."""
    if not any(isinstance(label, tuple) for label in labels):
        return np.array(labels, dtype=np.int64)
    array = np.zeros((len(labels), num_classes), np.int64)
    for row, label in zip(array, labels, strict=True):
        row[list(classes_of(label))] = 1
    return array
