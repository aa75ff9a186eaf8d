"""Results per class: accuracies, confusion matrix, per_class.csv and per_class.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slowfast.utils.text_files import write_csv, write_json
from slowfast.visualization.plots import BLUE, GRAY, INK, RED, image_of, label_text, new_figure, save_png, style_axes
from slowfast.visualization.results import PERCENT_DIGITS, VideoPrediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MATRIX_CLASSES = 60  # largest number of classes for which a matrix is legible
NUMBERED_CLASSES = 20  # largest number of classes with counts in the cells
LISTED = 25  # pairs and worst classes listed for many classes
PER_CLASS_CSV, PER_CLASS_JSON = "per_class.csv", "per_class.json"
Row = dict[str, Any]  # values by column: numbers, text, or None if there is no value


def draw_confusion(
    labels: Sequence[int], predictions: Sequence[int | None], class_names: Sequence[str], path: Path
) -> None:
    """Draw the confusion matrix as a PNG, each row normalized by the number of videos of its class.

    For more than MATRIX_CLASSES classes, draw the most confused pairs, the worst classes and the distribution of the
    accuracies instead.

    Args:
        labels: Label of each video.
        predictions: Predicted class of each video; unreadable videos (None) are excluded.
        class_names: Names of all classes.
        path: File to write.

    Raises:
        PlotsUnavailable: Without matplotlib.
    """
    save_png(_draw(labels, predictions, class_names), path)


def confusion_image(labels: Sequence[int], predictions: Sequence[int | None], class_names: Sequence[str]) -> np.ndarray:
    """Return the plot of :func:`draw_confusion` as an image uint8 (H, W, 3) RGB."""
    return image_of(_draw(labels, predictions, class_names))


def _draw(labels: Sequence[int], predictions: Sequence[int | None], class_names: Sequence[str]) -> Figure:
    confusions = count_confusions(labels, predictions, len(class_names))
    draw = _draw_matrix if len(class_names) <= MATRIX_CLASSES else _draw_many
    return draw(confusions, class_names)


@dataclass(frozen=True)
class Confusions:
    """Sparse confusion matrix: the P pairs of label and prediction that occur, in ascending order.

    Attributes:
        labels: Label of each pair, int64 (P,).
        predictions: Predicted class of each pair, int64 (P,).
        videos: Number of videos of each pair, int64 (P,).
        num_classes: Number of classes.
    """

    labels: np.ndarray
    predictions: np.ndarray
    videos: np.ndarray
    num_classes: int

    def dense(self) -> np.ndarray:
        """Return the matrix of labels (rows) and predictions (columns), int64 (num_classes, num_classes)."""
        counts = np.zeros((self.num_classes, self.num_classes), np.int64)
        counts[self.labels, self.predictions] = self.videos
        return counts

    def per_class(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of videos of each class, and of those predicted correctly, int64 (num_classes,) each."""
        correct = self.labels == self.predictions
        totals, hits = np.zeros((2, self.num_classes), np.int64)
        np.add.at(totals, self.labels, self.videos)
        hits[self.labels[correct]] = self.videos[correct]
        return totals, hits


def count_confusions(labels: Sequence[int], predictions: Sequence[int | None], num_classes: int) -> Confusions:
    """Count how often each class was predicted as each class; unreadable videos (None) are excluded."""
    read = [(label, predicted) for label, predicted in zip(labels, predictions, strict=True) if predicted is not None]
    pairs = np.array(read, np.int64).reshape(-1, 2)
    codes, videos = np.unique(pairs[:, 0] * num_classes + pairs[:, 1], return_counts=True)
    return Confusions(*np.divmod(codes, num_classes), videos.astype(np.int64), num_classes)


def confused_pairs(confusions: Confusions, most: int) -> list[tuple[int, int, int]]:
    """Return the most frequent confusions as (label, prediction, number of videos), most frequent first."""
    wrong = np.flatnonzero(confusions.labels != confusions.predictions)
    chosen = wrong[np.argsort(-confusions.videos[wrong], kind="stable")[:most]]
    columns = (confusions.labels, confusions.predictions, confusions.videos)
    return list(zip(*(column[chosen].tolist() for column in columns), strict=True))


def class_accuracies(confusions: Confusions) -> np.ndarray:
    """Return the accuracy of each class as float64 (num_classes,); NaN for a class without videos."""
    totals, hits = confusions.per_class()
    return np.where(totals > 0, hits / np.maximum(totals, 1), np.nan)


def _draw_matrix(confusions: Confusions, class_names: Sequence[str]) -> Figure:
    classes, counts = len(class_names), confusions.dense()
    side = float(np.clip(0.5 * classes, 3.2, 12.0))
    figure = new_figure(side + 2.2, side + 1.2)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    small = 9 if classes <= NUMBERED_CLASSES else 7.5
    names = [label_text(name, 24) for name in class_names]
    axes.set_xticks(range(classes), names, rotation=90 if classes > 12 else 40, fontsize=small)
    axes.set_yticks(range(classes), names, fontsize=small)
    if classes <= 12:
        for tick in axes.get_xticklabels():
            tick.set(ha="right", rotation_mode="anchor")
    axes.set_xlabel("prediction", color=INK)
    axes.set_ylabel("label", color=INK)
    axes.set_title(_headline(confusions), fontsize=10, color=INK, loc="left")
    if classes <= NUMBERED_CLASSES:
        for row, column in np.argwhere(counts):
            ink = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=ink)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.0)
    axes.tick_params(which="both", length=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.6, label="fraction of the videos of the label")
    bar.outline.set_visible(False)
    return figure


def _draw_many(confusions: Confusions, class_names: Sequence[str]) -> Figure:
    figure = new_figure(15.0, 7.0)
    pair_axes, worst_axes, spread_axes = figure.subplots(1, 3, width_ratios=(1.3, 1.0, 1.0))
    figure.suptitle(_headline(confusions), fontsize=11, color=INK, x=0.01, ha="left")
    pairs = confused_pairs(confusions, LISTED)
    texts = [f"{label_text(class_names[a], 26)} as {label_text(class_names[b], 26)}" for a, b, _ in pairs]
    _draw_bars(pair_axes, texts, [videos for _, _, videos in pairs], RED, "Most confused pairs", "videos")

    accuracies = class_accuracies(confusions)
    known = np.flatnonzero(np.isfinite(accuracies))
    worst = known[np.argsort(accuracies[known], kind="stable")][:LISTED]
    _draw_bars(
        worst_axes,
        [label_text(class_names[label], 30) for label in worst],
        [100.0 * accuracies[label] for label in worst],
        BLUE,
        "Worst classes",
        "top-1 (%)",
    )
    worst_axes.set_xlim(0.0, 100.0)

    spread_axes.hist(100.0 * accuracies[known], bins=np.linspace(0.0, 100.0, 21), color=BLUE, edgecolor="white")
    if len(known):
        middle = float(np.median(100.0 * accuracies[known]))
        spread_axes.axvline(middle, color=GRAY, linestyle="--", linewidth=1.2, label=f"median {middle:.0f} %")
        spread_axes.legend(fontsize=8, frameon=False)
    spread_axes.set_title("Classes by their accuracy", fontsize=10, color=INK, loc="left")
    spread_axes.set_xlabel("top-1 (%)", fontsize=9, color=INK)
    spread_axes.set_ylabel("classes", fontsize=9, color=INK)
    style_axes(spread_axes)
    return figure


def _draw_bars(axes: Axes, texts: Sequence[str], values: Sequence[float], color: str, title: str, unit: str) -> None:
    places = np.arange(len(texts))
    axes.barh(places, values, color=color, height=0.7)
    axes.set_yticks(places, texts)
    axes.invert_yaxis()
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(unit, fontsize=9, color=INK)
    axes.margins(y=0.01)
    style_axes(axes)
    axes.grid(visible=False, axis="y")


def _headline(confusions: Confusions) -> str:
    totals, hits = confusions.per_class()
    videos = int(totals.sum())
    share = 100.0 * int(hits.sum()) / videos if videos else 0.0
    return f"{share:.1f} % of {videos} videos correct"


def write_per_class(rows: Sequence[Row], class_names: Sequence[str], folder: Path, what: str) -> dict[str, Path]:
    """Write the results of all classes as a table and as a list of JSON objects.

    Args:
        rows: Results of each class, in label order. Percentages are rounded already.
        class_names: Names of all classes; label and name are the first columns.
        folder: OUTPUT_DIR.
        what: Description of the table, such as "accuracy per class".

    Returns:
        Descriptions and paths of the files.
    """
    named = [
        {"class": label, "class_name": name} | row
        for label, (name, row) in enumerate(zip(class_names, rows, strict=True))
    ]
    table = [["" if value is None else value for value in row.values()] for row in named]
    write_csv(folder / PER_CLASS_CSV, list(named[0]), table)
    write_json(folder / PER_CLASS_JSON, named)
    return {what: folder / PER_CLASS_CSV, f"{what} (JSON)": folder / PER_CLASS_JSON}


@dataclass(frozen=True)
class ClassAccuracies:
    """Accuracy of each of K classes; unreadable videos count as wrong, as in the top-1 accuracy.

    Attributes:
        videos: Number of videos, int64 (K,).
        correct: Number of correct predictions, int64 (K,).
        confused_with: Most frequent wrong prediction, the first of several; -1 if there is none, int64 (K,).
        confused_videos: Number of videos with that prediction, int64 (K,).
    """

    videos: np.ndarray
    correct: np.ndarray
    confused_with: np.ndarray
    confused_videos: np.ndarray

    @classmethod
    def of(cls, predictions: Sequence[VideoPrediction], num_classes: int) -> ClassAccuracies:
        """Count the predictions of all videos, in memory that grows with the number of videos and classes."""
        labels = np.array([one.label for one in predictions], np.int64)
        confusions = count_confusions(labels.tolist(), [one.prediction for one in predictions], num_classes)
        _, correct = confusions.per_class()
        confused_with, confused_videos = np.full(num_classes, -1), np.zeros(num_classes, np.int64)
        wrong = np.flatnonzero(confusions.labels != confusions.predictions)
        # The last assignment to a class stays: its most frequent pair; among equals, the lowest prediction.
        order = wrong[np.lexsort((-confusions.predictions[wrong], confusions.videos[wrong]))]
        confused_with[confusions.labels[order]] = confusions.predictions[order]
        confused_videos[confusions.labels[order]] = confusions.videos[order]
        return cls(np.bincount(labels, minlength=num_classes), correct, confused_with, confused_videos)

    def mean(self) -> float:
        """Return the mean over the classes with videos of their accuracy in percent; 0 if there is none."""
        known = self.videos > 0
        shares = 100.0 * self.correct[known] / self.videos[known]
        return round(float(shares.mean()), PERCENT_DIGITS) if len(shares) else 0.0

    def rows(self, class_names: Sequence[str]) -> list[Row]:
        """Return the rows for `write_per_class`: the accuracy (%) of a class without videos is None."""
        rows = []
        columns = (self.videos, self.correct, self.confused_with, self.confused_videos)
        for videos, correct, other, count in zip(*(column.tolist() for column in columns), strict=True):
            confused = other >= 0
            rows.append(
                {
                    "videos": videos,
                    "correct": correct,
                    "accuracy": round(100.0 * correct / videos, PERCENT_DIGITS) if videos else None,
                    "confused_with": other if confused else None,
                    "confused_with_name": class_names[other] if confused else None,
                    "confused_videos": count if confused else None,
                }
            )
        return rows
