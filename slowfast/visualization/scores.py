"""File with the logits of all classes of a test (TEST.SAVE_RESULTS_PATH)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.index.entries import classes_of
from slowfast.errors import ConfigError, UserError
from slowfast.utils.files import atomic_path, check_output_file, reporting_file
from slowfast.utils.logging import get_logger
from slowfast.visualization.results import VideoPrediction

KEY, SUFFIX = "TEST.SAVE_RESULTS_PATH", ".npz"
PICKLES = (".pkl", ".pickle")
_BLOCK = 2**20  # values converted at a time


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


def write_scores(
    predictions: Sequence[VideoPrediction], logits: Iterable[np.ndarray], num_classes: int, path: Path, setting: str
) -> None:
    """Write the arrays ``names`` (N,), ``labels`` and ``logits`` float32 (N, K), block by block.

    ``labels`` are class indices int64 (N,), or multi-hot int64 (N, K) if a sample may have several.

    Args:
        predictions: Predictions in the order of the file.
        logits: Their logits in blocks, float32 (rows, K) each; the row of an unreadable video is NaN.
        num_classes: K.
        path: File to write, completely or not at all.
        setting: Value of TEST.SAVE_RESULTS_PATH, for the notice if its suffix is replaced.

    Raises:
        DiskError: If the disk is full or cannot be written to.
    """
    count = len(predictions)
    longest = max((len(video.name) for video in predictions), default=1)
    several = any(isinstance(video.label, tuple) for video in predictions)
    labels_shape = (count, num_classes) if several else (count,)
    with (
        atomic_path(path, suffix=SUFFIX, setting=KEY) as part,
        reporting_file(part) as file,
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
    ):
        names = (np.array([video.name for video in some], f"U{longest}") for some in _blocks(predictions, longest))
        _write_array(archive, "names", np.dtype(f"U{longest}"), (count,), names)
        rows = _blocks(predictions, num_classes if several else 1)
        labels = (_label_array([video.label for video in some], num_classes, several) for some in rows)
        _write_array(archive, "labels", np.dtype(np.int64), labels_shape, labels)
        _write_array(archive, "logits", np.dtype(np.float32), (count, num_classes), logits)
    if Path(setting).suffix.lower() != SUFFIX:
        get_logger().info(f"{KEY} {setting}: saved as {path} (arrays names, labels, logits), not as a pickle")


def _blocks(predictions: Sequence[VideoPrediction], values: int) -> Iterator[Sequence[VideoPrediction]]:
    """Yield the predictions in blocks of about _BLOCK values, `values` per prediction."""
    size = max(_BLOCK // max(values, 1), 1)
    return (predictions[first : first + size] for first in range(0, len(predictions), size))


def _write_array(
    archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], blocks: Iterable[np.ndarray]
) -> None:
    """Write an array in blocks of its first dimension, as ``np.savez`` does."""
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks:
            file.write(np.ascontiguousarray(block, dtype).tobytes())


def _label_array(labels: Sequence[Any], num_classes: int, several: bool) -> np.ndarray:
    """Return class indices int64 (N,), or the multi-hot array int64 (N, K) of tuples of them."""
    if not several:
        return np.array(labels, dtype=np.int64)
    array = np.zeros((len(labels), num_classes), np.int64)
    for row, label in zip(array, labels, strict=True):
        row[list(classes_of(label))] = 1
    return array
