"""Output files of a test: test_results.json, predictions.csv and failed.csv.

Files appear completely or not at all. Numbers have a fixed number of digits, so that rounding differences of another
batch size do not show.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from tabulate import tabulate

from slowfast.datasets.index.entries import classes_of, format_label
from slowfast.datasets.types import Failure
from slowfast.utils.text import sanitize
from slowfast.utils.text_files import write_csv, write_json

BEST = 5  # classes kept per video
TEST_RESULTS, PREDICTIONS = "test_results.json", "predictions.csv"
PERCENT_DIGITS = 2
SCORE_DIGITS = 4
REPORTED_PACKAGES = ("torch", "numpy", "av", "opencv-python", "pillow")


@dataclass(frozen=True)
class Metric:
    """Description of a metric, for everything that reports it.

    Attributes:
        key: Name in metrics.jsonl, TensorBoard and test_results.json.
        title: Name in messages, tables and plots.
        unit: Unit, such as "%"; "" for none.
        digits: Decimal places in messages and tables.
        higher_is_better: Direction of improvement.
    """

    key: str
    title: str
    unit: str = "%"
    digits: int = PERCENT_DIGITS
    higher_is_better: bool = True

    def text(self, value: float, digits: int | None = None) -> str:
        """Format a value with its unit."""
        return f"{value:.{self.digits if digits is None else digits}f} {self.unit}".rstrip()

    def is_better(self, value: float, than: float | None) -> bool:
        """Return whether a value is an improvement; NaN never is, and any other value improves on None."""
        if than is None:
            return value == value
        return value > than if self.higher_is_better else value < than


LOSS = Metric("loss", "loss", unit="", digits=4, higher_is_better=False)


@dataclass(frozen=True)
class Results:
    """Results of an evaluation.

    Attributes:
        values: Values by key, for test_results.json.
        rows: Lines of the results table, as (name, value).
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class VideoPrediction:
    """Ensembled class scores of one video of the test set.

    Attributes:
        index: Place in the index file, from 0.
        name: Path as in the index file.
        label: Class index, or a tuple of them.
        best: Up to five (class, score in [0, 1]), best first; empty if the video is unreadable.
        views: Best class of each view alone.
        label_scores: Scores of the classes of the label, if the task's metrics need them.
    """

    index: int
    name: str
    label: Any
    best: Sequence[tuple[int, float]] = ()
    views: Sequence[int] = ()
    label_scores: Sequence[float] = ()

    def __reduce__(self) -> tuple[type[VideoPrediction], tuple[Any, ...]]:
        """Pickle faster than the default of a dataclass with slots, because many are sent between processes."""
        return VideoPrediction, (self.index, self.name, self.label, self.best, self.views, self.label_scores)

    @property
    def prediction(self) -> int | None:
        """Best class; None for an unreadable video."""
        return self.best[0][0] if self.best else None

    def hit(self, k: int) -> bool:
        """Return whether a class of the label is among the k best classes."""
        return any(label in classes_of(self.label) for label, _ in self.best[:k])


@dataclass(frozen=True)
class PredictionRow:
    """One line of predictions.csv; the fields are its columns, for every task and command.

    Attributes:
        path: Path as in the index file or on the command line.
        label: Label as in the index file, the classes of several joined by commas; empty if there is none.
        prediction: Best class, or predicted value of a task without classes; empty if the sample is unreadable.
        class_name: Name of that class.
        score: Score of that class in [0, 1].
        five_best: The five best classes as ``class:score``, best first, separated by spaces.
    """

    path: str
    label: str = ""
    prediction: str | int = ""
    class_name: str = ""
    score: str = ""
    five_best: str = ""


def class_row(path: str, label: Any, best: Sequence[tuple[int, float]], class_names: Sequence[str]) -> PredictionRow:
    """Return the line of a sample with class scores.

    Args:
        path: Path of the sample.
        label: Class index or a tuple of them; None if there is no label.
        best: (class, score) of the best classes, best first; empty if the sample is unreadable.
        class_names: Names of all classes.
    """
    text = "" if label is None else format_label(label)
    if not best:
        return PredictionRow(path, text)
    scored = [(number, f"{score:.{SCORE_DIGITS}f}") for number, score in best]
    first, score = scored[0]
    return PredictionRow(path, text, first, class_names[first], score, " ".join(f"{n}:{s}" for n, s in scored))


def write_predictions(rows: Iterable[PredictionRow], path: Path) -> None:
    """Write predictions.csv."""
    write_csv(path, [column.name for column in fields(PredictionRow)], map(astuple, rows))


@dataclass(frozen=True)
class Tested:
    """Subject of a test; the fields are keys of test_results.json.

    Attributes:
        model: MODEL.MODEL_NAME.
        checkpoint: File or address of the weights, without credentials; "random" without any.
        checkpoint_sha256: SHA-256 of that file; None for random weights.
        checkpoint_choice: ``given`` by TEST.CHECKPOINT_FILE_PATH, else ``last`` or ``best``; None for random weights.
        checkpoint_epoch: Epochs of training of a last or best checkpoint; None if unknown.
        dataset: TEST.DATASET.
        data: DATA.PATH_TO_DATA_DIR.
        device: Name of the GPU or CPU.
        date: Start of the test, ISO 8601 with the time zone.
    """

    __test__ = False  # not a pytest class

    model: str
    checkpoint: str
    checkpoint_sha256: str | None
    checkpoint_choice: str | None
    checkpoint_epoch: int | None
    dataset: str
    data: str
    device: str
    date: str

    @property
    def weights(self) -> str:
        """Return the end of the checkpoint's path and its choice (last, best or given)."""
        details = [] if self.checkpoint_choice in (None, "given") else [f"{self.checkpoint_choice} of the run"]
        details += [] if self.checkpoint_epoch is None else [f"epoch {self.checkpoint_epoch}"]
        return tail(self.checkpoint, 44) + (f" ({', '.join(details)})" if details else "")


@dataclass(frozen=True)
class TestReport:
    """Results of a test and the facts about its run.

    Attributes:
        results: Metrics of the task.
        videos: Number of videos, unreadable ones included.
        failed: Number of unreadable videos.
        views: Temporal views per video.
        crops: Spatial crops per view.
        seconds: Duration of the test.
        clips_per_second: Throughput.
        peak_memory_mib: Peak memory of the process, or of the GPU.
        config_digest: Digest of the config.
        tested: What was tested.
        extra: Results of the test mode, such as the computation saved by event-driven inference.
        versions: Versions of the libraries.
    """

    __test__ = False  # not a pytest class

    results: Results
    videos: int
    failed: int
    views: int
    crops: int
    seconds: float
    clips_per_second: float
    peak_memory_mib: float
    config_digest: str
    tested: Tested
    extra: Results = field(default_factory=Results)
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_run(
        cls,
        results: Results,
        *,
        videos: int,
        failed: int,
        views: int,
        crops: int,
        seconds: float,
        peak_memory: int,
        config_digest: str,
        tested: Tested,
        extra: Results,
    ) -> TestReport:
        """Build from measurements; peak_memory is in bytes."""
        clips = (videos - failed) * views * crops
        return cls(
            results,
            videos=videos,
            failed=failed,
            views=views,
            crops=crops,
            seconds=round(seconds, 2),
            clips_per_second=round(clips / seconds, 2) if seconds > 0 else 0.0,
            peak_memory_mib=round(peak_memory / 2**20, 1),
            config_digest=config_digest,
            tested=tested,
            extra=extra,
            versions=library_versions(),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the content of test_results.json."""
        parts = ("results", "extra", "tested")
        run = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in parts}
        table = {"results": dict((*self.results.rows, *self.extra.rows))}
        return {**self.results.values, **self.extra.values, **table, **run, **asdict(self.tested)}


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
    """Write test_results.json."""
    write_json(path, report.as_dict())


def write_failed(failures: Iterable[Failure], path: Path) -> None:
    """Write the list of samples that are unreadable (lost: yes) or incomplete (lost: no), in index order.

    If nothing failed, only the header is written, which replaces the list of an earlier run.
    """
    ordered = sorted(set(failures), key=lambda failure: (failure.index, failure.reason))
    rows = [(failure.name, "yes" if failure.lost else "no", failure.reason) for failure in ordered]
    write_csv(path, ("path", "lost", "reason"), rows)


WIDTH = 100


def results_table(report: TestReport) -> str:
    """Return the results of a test, one per line."""
    rows = [*report.results.rows, *report.extra.rows, ("videos", f"{report.videos}")]
    if report.failed:
        rows.append(("failed", f"{report.failed}"))
    rows += [
        ("weights", report.tested.weights),
        ("views x crops", f"{report.views} x {report.crops}"),
        ("time", f"{report.seconds:.1f} s, {report.clips_per_second:.1f} clips/s"),
        ("peak memory", f"{report.peak_memory_mib:.0f} MiB"),
    ]
    return tabulate(rows, headers=("test", "result"), tablefmt="simple", disable_numparse=True)


def files_table(files: Mapping[str, Path]) -> str:
    """Return the descriptions and paths of output files; a path that is too long is cut at its start."""
    length = WIDTH - 2 - max(map(len, files), default=0)
    rows = [(what, tail(str(path), length)) for what, path in files.items()]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def tail(text: str, length: int) -> str:
    """Prepare a name for a table: printable, and only its end if it exceeds `length` characters."""
    text = sanitize(text)
    return text if len(text) <= length else "..." + text[len(text) - length + 3 :]
