"""All scores of a test in one NumPy file (TEST.SAVE_RESULTS_PATH).

N videos in the order of the index file, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError, UserError
from slowfast.report.results import VideoPrediction
from slowfast.runtime.logging import get_logger
from slowfast.runtime.unfinished import reporting_file, written_whole
from slowfast.utils.output import check_output_file

KEY, SUFFIX = "TEST.SAVE_RESULTS_PATH", ".npz"
PICKLES = (".pkl", ".pickle")


def scores_path(cfg: ConfigNode) -> Path | None:
    """Return where the scores are written, None for nowhere.

    As in the published code a relative path is one in OUTPUT_DIR. Pickle files are never written: the name of one
    becomes that of an .npz file beside it.
    """
    setting = cfg.TEST.SAVE_RESULTS_PATH
    if not setting:
        return None
    path = Path(cfg.OUTPUT_DIR) / setting
    if path.suffix.lower() == SUFFIX:
        return path
    return path.with_suffix(SUFFIX) if path.suffix.lower() in PICKLES else path.with_name(path.name + SUFFIX)


def check_scores_path(cfg: ConfigNode) -> None:
    """Raise ConfigError unless the file can be written."""
    path = scores_path(cfg)
    if path is None:
        return
    try:
        check_output_file(path, KEY, (SUFFIX,))
    except UserError as error:
        raise ConfigError(str(error)) from None


def write_scores(predictions: Sequence[VideoPrediction], num_classes: int, path: Path, setting: str) -> None:
    """Write the arrays ``names`` (N,), ``labels`` int64 (N,) and ``logits`` float32 (N, K).

    Args:
        predictions: Predictions with their logits; the row of a video that could not be read is NaN.
        num_classes: K.
        path: The file, which appears whole or not at all.
        setting: Value of TEST.SAVE_RESULTS_PATH; a notice says so if it names another kind of file.

    Raises:
        DiskError: If the disk is full or cannot be written to.
    """
    ordered = sorted(predictions, key=lambda video: video.index)
    logits = np.full((len(ordered), num_classes), np.nan, np.float32)
    for row, video in zip(logits, ordered, strict=True):
        if video.logits is not None:
            row[:] = video.logits
    names = np.array([video.name for video in ordered], dtype=np.str_)
    labels = np.array([video.label for video in ordered], dtype=np.int64)
    with written_whole(path, suffix=SUFFIX, setting=KEY) as part, reporting_file(part) as file:
        np.savez(file, names=names, labels=labels, logits=logits)
    if Path(setting).suffix.lower() != SUFFIX:
        get_logger().info(f"{KEY} {setting}: the scores are in {path} (arrays names, labels, logits), not in a pickle")
