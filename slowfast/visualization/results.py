"""What a test leaves on disk: test_results.json, predictions.csv and failed.csv.

Every file is written beside its place and moved there whole. Numbers have a fixed count of digits, so that rounding
errors of another batch size do not show.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.types import Failure
from slowfast.errors import ConfigError, UserError
from slowfast.utils.csv_files import write_csv
from slowfast.utils.files import reporting_file, written_whole
from slowfast.utils.json_files import write_json
from slowfast.utils.logging import get_logger
from slowfast.utils.output_folders import check_output_file

BEST = 5  # classes kept of each video
PERCENT_DIGITS = 2
SCORE_DIGITS = 4
REPORTED_PACKAGES = ("torch", "numpy", "av", "opencv-python", "pillow")


@dataclass(frozen=True)
class VideoPrediction:
    """The ensembled prediction for one video of the test set; `index` is its place in the index file, from 0.

    best: up to five (class, score in [0, 1]), best first; empty when the video could not be read.
    views: the best class of each view by itself.
    logits: float32 (classes,), joined over the views as DATA.ENSEMBLE_METHOD says; only with TEST.SAVE_RESULTS_PATH.
    """

    index: int
    name: str  # as in the index file
    label: int
    best: Sequence[tuple[int, float]] = ()
    views: Sequence[int] = ()
    logits: np.ndarray | None = field(default=None, compare=False)

    @property
    def prediction(self) -> int | None:
        """The best class, None for a video that could not be read."""
        return self.best[0][0] if self.best else None

    def hit(self, k: int) -> bool:
        """Whether the label is among the k best classes."""
        return self.label in [label for label, _ in self.best[:k]]


@dataclass(frozen=True)
class TestReport:
    """The figures of a test. Accuracies are in %; top1 and top5 count failed videos as wrong, *_read leave them out.

    With fewer than five classes, top5 takes as many as there are (`k`). top1_view and top1_view_std are the mean and
    standard deviation, over views, of the accuracy of one view of each video alone; failed videos count as wrong.
    Of event recordings these are also top1_single and top1_single_std: each sample of the events counts alone, as in
    the published figures, while top1 is that of the average of a recording's samples.
    macs_saved and active_patches (of each stage) are in %, of event-driven tests only.
    """

    __test__ = False  # not a pytest class

    top1: float
    top5: float
    top1_read: float
    top5_read: float
    k: int
    videos: int
    failed: int
    views: int
    crops: int
    seconds: float
    clips_per_second: float
    peak_memory_mib: float
    config_digest: str
    top1_view: float = 0.0
    top1_view_std: float = 0.0
    top1_single: float | None = None
    top1_single_std: float | None = None
    macs_saved: float | None = None
    active_patches: Sequence[float] | None = None
    versions: dict[str, str] = field(default_factory=dict)


def summarize(
    predictions: Sequence[VideoPrediction],
    *,
    num_classes: int,
    views: int,
    crops: int,
    seconds: float,
    peak_memory: int,
    config_digest: str,
) -> TestReport:
    """The figures of a test from each video's prediction; seconds and peak_memory (bytes) are the caller's measure."""
    read = [video for video in predictions if video.best]
    k = min(BEST, num_classes)
    return TestReport(
        top1=accuracy(predictions, 1),
        top5=accuracy(predictions, k),
        top1_read=accuracy(read, 1),
        top5_read=accuracy(read, k),
        k=k,
        videos=len(predictions),
        failed=len(predictions) - len(read),
        views=views,
        crops=crops,
        seconds=round(seconds, 2),
        clips_per_second=round(len(read) * views * crops / seconds, 2) if seconds > 0 else 0.0,
        peak_memory_mib=round(peak_memory / 2**20, 1),
        config_digest=config_digest,
        **_single_views(predictions, views * crops),
        versions=library_versions(),
    )


def _single_views(predictions: Sequence[VideoPrediction], views: int) -> dict[str, Any]:
    """Accuracy of each view alone, in %: its mean and its standard deviation (0 for one view)."""
    hits = [sum(v.label == v.views[view] for v in predictions if len(v.views) == views) for view in range(views)]
    shares = [100.0 * count / max(len(predictions), 1) for count in hits]
    spread = stdev(shares) if views > 1 else 0.0
    return {"top1_view": round(mean(shares), PERCENT_DIGITS), "top1_view_std": round(spread, PERCENT_DIGITS)}


def accuracy(predictions: Sequence[VideoPrediction], k: int) -> float:
    """Videos, in %, whose label is among their k best classes; those not read count as wrong. 0 for no videos."""
    hits = sum(video.hit(k) for video in predictions)
    return round(100.0 * hits / len(predictions), PERCENT_DIGITS) if predictions else 0.0


def library_versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that can change a result."""
    from slowfast import __version__

    versions = {"slowfast": __version__, "python": platform.python_version()}
    for name in REPORTED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def write_results(report: TestReport, path: Path) -> None:
    """Write test_results.json; what does not apply is left out."""
    given = {name: value for name, value in asdict(report).items() if value is not None}
    write_json(path, given)


def write_predictions(predictions: Iterable[VideoPrediction], class_names: Sequence[str], path: Path) -> None:
    """Write predictions.csv, a line a video in the index file's order.

    Columns: path, label, prediction, class_name (of the prediction), score, five_best (`class:score` best first, a
    space between). A video that could not be read keeps its line, with empty cells.
    """
    rows = []
    for video in sorted(predictions, key=lambda video: video.index):
        scored = [(label, f"{score:.{SCORE_DIGITS}f}") for label, score in video.best]
        five = " ".join(f"{label}:{score}" for label, score in scored)
        first = (scored[0][0], class_names[scored[0][0]], scored[0][1]) if scored else ("", "", "")
        rows.append((video.name, video.label, *first, five))
    write_csv(path, ("path", "label", "prediction", "class_name", "score", "five_best"), rows)


def write_failed(failures: Iterable[Failure], path: Path) -> None:
    """Write the list of media that could not be read, whole (lost: yes) or in part (lost: no), in index order.

    Written with its heading alone when nothing failed, so that no older list is taken for this one.
    """
    ordered = sorted(set(failures), key=lambda failure: (failure.index, failure.reason))
    rows = [(failure.name, "yes" if failure.lost else "no", failure.reason) for failure in ordered]
    write_csv(path, ("path", "lost", "reason"), rows)


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
