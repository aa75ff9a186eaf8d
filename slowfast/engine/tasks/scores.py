"""Class scores of many samples: rows in bounded memory, their evaluator, and the file of TEST.SAVE_RESULTS_PATH.

N samples, K classes.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.clip_dataset import EvalDataset
from slowfast.datasets.index.entries import classes_of
from slowfast.datasets.types import Record
from slowfast.engine.evaluate import Ensemble, best_classes
from slowfast.engine.tasks.base import Evaluator
from slowfast.errors import ConfigError, UserError
from slowfast.utils.distributed import World
from slowfast.utils.files import atomic_path, check_output_file, disk_error, reporting_file
from slowfast.utils.logging import get_logger
from slowfast.visualization.results import BEST, PredictionRow, Results, VideoPrediction, class_row
from slowfast.visualization.sheets import draw_mistakes, draw_samples

_IN_MEMORY = 64 * 2**20  # bytes kept in memory; beyond, rows are in a file
_BLOCK = 32 * 2**20  # bytes read at a time


class ScoreRows:
    """Rows of K float32 scores in memory, or in a temporary file without a name once they exceed 64 MiB.

    Args:
        num_classes: K.
        folder: Folder of the file, which takes 4 K bytes per sample; the system's folder of temporary files if it does
            not exist.
    """

    def __init__(self, num_classes: int, folder: Path | None = None) -> None:
        self.num_classes = num_classes
        self._folder = folder if folder is not None and folder.is_dir() else Path(tempfile.gettempdir())
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def block(self) -> int:
        """Number of rows to read at a time."""
        return max(_BLOCK // (4 * self.num_classes), 1)

    def append(self, rows: np.ndarray) -> None:
        """Add a row (K,) or several (N, K).

        Raises:
            DiskError: If the disk is full.
        """
        data = np.ascontiguousarray(rows, np.float32)
        try:
            self._file.seek(0, 2)
            self._file.write(data.tobytes())
        except OSError as error:
            raise disk_error(error, self._folder / "temporary file of scores", "OUTPUT_DIR") or error from error
        self._count += data.size // self.num_classes

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return rows of ascending numbers, float32 (len(rows), K)."""
        found = np.empty((len(rows), self.num_classes), np.float32)
        stretches = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1)  # runs of consecutive rows
        for stretch in stretches if len(rows) else []:
            self._file.seek(int(rows[stretch[0]]) * 4 * self.num_classes)
            data = self._file.read(len(stretch) * 4 * self.num_classes)
            found[stretch] = np.frombuffer(data, np.float32).reshape(-1, self.num_classes)
        return found

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows, in blocks float32 (rows, K)."""
        for first in range(0, len(self), self.block):
            yield self.read(np.arange(first, min(first + self.block, len(self))))


def gather_rows(world: World, own: ScoreRows, indices: np.ndarray, every: np.ndarray, folder: Path | None) -> ScoreRows:
    """Merge the rows of all processes in one order; all processes must call it.

    Args:
        world: Processes of the run.
        own: Rows of this process.
        indices: Index of the sample of each row, int64 (len(own),).
        every: Indices of all samples in the order of the result, ascending, int64 (N,).
        folder: Folder of a temporary file; see `ScoreRows`.

    Returns:
        In the main process the rows of all samples, NaN for samples without a row; no rows in the others.
    """
    order = np.argsort(indices, kind="stable")
    if world.size == 1 and np.array_equal(indices, every):
        return own
    gathered = ScoreRows(own.num_classes, folder)
    for first in range(0, len(every), own.block):
        wanted = every[first : first + own.block]
        start, end = np.searchsorted(indices[order], [wanted[0], wanted[-1] + 1])
        rows = np.sort(order[start:end])
        parts = world.gather([(indices[rows], own.read(rows))])
        if world.is_main:
            block = np.full((len(wanted), own.num_classes), np.nan, np.float32)
            for found, values in parts:
                block[np.searchsorted(wanted, found)] = values
            gathered.append(block)
    return gathered


class ClassScoreEvaluator(Evaluator[VideoPrediction]):
    """Base class of the evaluators of tasks with class scores.

    Args:
        world: Processes of the run.
        num_classes: Number of classes.
        ensemble: Combines the logits of a sample's views into its scores.
        keep_logits: Whether to keep the combined logits of all samples (TEST.SAVE_RESULTS_PATH).
        keep_scores: Whether to keep the scores of all classes, for metrics that need them.
        folder: Folder of the temporary files of logits and scores, which take 4 bytes per sample and class.

    Attributes:
        logits: Logits of all samples in the order of `predictions`, NaN for unreadable ones; set by `evaluate` in the
            main process.
    """

    def __init__(
        self,
        world: World,
        num_classes: int,
        ensemble: Ensemble,
        *,
        keep_logits: bool = False,
        keep_scores: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.num_classes, self.ensemble = num_classes, ensemble
        self.keep_logits, self.keep_scores, self.folder = keep_logits, keep_scores, folder
        super().__init__(world)

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        # For the readable samples of this process.
        self.logits = ScoreRows(self.num_classes, self.folder)
        self.scores = ScoreRows(self.num_classes, self.folder)

    def predict(self, record: Record, outputs: torch.Tensor | None) -> VideoPrediction:
        """Return the best classes of a sample."""
        if outputs is None:
            return VideoPrediction(record.index, record.name, record.label)
        scores = self.ensemble(outputs)
        if self.keep_logits:
            self.logits.append(self.ensemble.join(outputs).numpy())
        of_label: tuple[float, ...] = ()
        if self.keep_scores:
            single = scores.float()
            self.scores.append(single.numpy())
            of_label = tuple(single[list(classes_of(record.label))].tolist())
        views = tuple(outputs.argmax(1).tolist())
        best = best_classes(scores, BEST)
        return VideoPrediction(record.index, record.name, record.label, best, views, of_label)

    def evaluate(self) -> Results:
        """Gather the predictions and logits of all processes and return the metrics."""
        results = super().evaluate()
        if self.keep_logits:
            own = np.array([index for index, readable, _ in self._own if readable], np.int64)
            every = self.world.from_main(np.array([one.index for one in self.predictions], np.int64))
            self.logits = gather_rows(self.world, self.logits, own, every, self.folder)
        return results

    def row(self, prediction: VideoPrediction, class_names: Sequence[str]) -> PredictionRow:
        """Return the best classes as a line of predictions.csv."""
        return class_row(prediction.name, prediction.label, prediction.best, class_names)

    def write(self, cfg: ConfigNode, class_names: Sequence[str]) -> dict[str, Path]:
        """Write the logits of all classes if TEST.SAVE_RESULTS_PATH is set."""
        path = scores_path(cfg)
        if path is None:
            return {}
        write_scores(self.predictions, self.logits.blocks(), self.num_classes, path, cfg.TEST.SAVE_RESULTS_PATH)
        return {"all scores": path}

    def draw(self, cfg: ConfigNode, dataset: EvalDataset, class_names: Sequence[str]) -> dict[str, Path]:
        """Draw a contact sheet of test samples, and the most confident mistakes."""
        mistakes = draw_mistakes(Path(cfg.OUTPUT_DIR), dataset, self.predictions, class_names)
        return draw_samples(Path(cfg.OUTPUT_DIR), dataset, self.predictions, class_names) | mistakes


KEY, SUFFIX = "TEST.SAVE_RESULTS_PATH", ".npz"
PICKLES = (".pkl", ".pickle")
_VALUES_PER_WRITE = 2**20  # values converted at a time


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
    """Yield the predictions in blocks of about _VALUES_PER_WRITE values, `values` per prediction."""
    size = max(_VALUES_PER_WRITE // max(values, 1), 1)
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
