"""Plots of a training and a test: curves, confusion matrix, contact sheet, and the most confident mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from slowfast.datasets.clip_dataset import EvalDataset
from slowfast.datasets.index.entries import classes_of
from slowfast.datasets.types import EvalRecording, EvalSample
from slowfast.utils.files import atomic_path
from slowfast.utils.logging import get_logger
from slowfast.utils.text_files import write_json
from slowfast.visualization.metrics_log import METRICS, draw_curves
from slowfast.visualization.per_class import draw_confusion
from slowfast.visualization.plots import GRAY, GREEN, INK, RED, even_indices, jpeg, label_text, new_figure, save_png
from slowfast.visualization.results import SCORE_DIGITS, Metric, VideoPrediction

FRAMES = 6  # frames drawn per clip
FRAME_WIDTH = 1.25  # inches


@dataclass(frozen=True)
class ClipRow:
    """Row of a contact sheet.

    Attributes:
        name: Path of the clip.
        frames: uint8 (T, H, W, 3) RGB.
        label: Class name of the label.
        prediction: Class name of the prediction.
        score: Score of the prediction in [0, 1].
        correct: True if the prediction is correct.
    """

    name: str
    frames: np.ndarray
    label: str
    prediction: str
    score: float
    correct: bool


def draw_contact_sheet(rows: Sequence[ClipRow], path: Path) -> None:
    """Draw clips as a PNG, correct predictions in green and wrong ones in red.

    Args:
        rows: Clips, each drawn with FRAMES evenly spaced frames.
        path: File to write.

    Raises:
        PlotsUnavailable: Without matplotlib.
        ValueError: Without clips.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one clip")
    tallest = max(row.frames.shape[1] / row.frames.shape[2] for row in rows)
    height = FRAME_WIDTH * tallest + 0.12
    figure = new_figure(2.6 + FRAMES * FRAME_WIDTH, height * len(rows) + 0.35)
    figure.set_layout_engine("constrained", w_pad=0.01, h_pad=0.02, wspace=0.0, hspace=0.0)
    grid = figure.subplots(len(rows), 1 + FRAMES, squeeze=False, width_ratios=[2.4, *[FRAME_WIDTH] * FRAMES])
    for row, axes in zip(rows, grid, strict=True):
        for one in axes:
            one.set_axis_off()
        color = GREEN if row.correct else RED
        verdict = f"{label_text(row.prediction, 24)}  {100.0 * row.score:.0f} %"
        axes[0].set(xlim=(0.0, 1.0), ylim=(0.0, 1.0))
        axes[0].plot([0.02, 0.02], [0.08, 0.92], color=color, linewidth=4, solid_capstyle="butt")
        axes[0].text(0.09, 0.72, label_text(row.label, 24), fontsize=10, fontweight="bold", color=INK, va="center")
        axes[0].text(0.09, 0.47, verdict, fontsize=9, color=color, va="center")
        axes[0].text(0.09, 0.24, label_text(Path(row.name).name, 30), fontsize=6.5, color=GRAY, va="center")
        for one, frame in zip(axes[1:], row.frames[_shown(len(row.frames))], strict=True):
            one.imshow(frame, interpolation="antialiased")
    correct = sum(row.correct for row in rows)
    figure.suptitle(
        f"Label, prediction and score; time runs from left to right; {correct} correct, {len(rows) - correct} wrong",
        fontsize=8,
        color=GRAY,
        x=0.01,
        ha="left",
    )
    save_png(figure, path)


def _shown(frames: int) -> np.ndarray:
    """Return the indices of the frames to draw, int64 (FRAMES,) and ascending; a shorter clip repeats some."""
    return np.rint(np.linspace(0, frames - 1, FRAMES)).astype(np.int64)


SHEET_ROWS = 10


def draw_training_curves(output: Path, metric: Metric | None) -> dict[str, Path]:
    """Draw curves.png from metrics.jsonl with a validation metric; return its description and path."""
    path = output / "curves.png"
    return _drawn("training curves", path, lambda: draw_curves(output / METRICS, path, metric))


def draw_confusion_matrix(
    output: Path, predictions: Sequence[VideoPrediction], names: Sequence[str]
) -> dict[str, Path]:
    """Draw confusion.png for predictions of one class per sample; return its description and path."""
    path = output / "confusion.png"
    labels, predicted = [p.label for p in predictions], [p.prediction for p in predictions]
    return _drawn("confusion matrix", path, lambda: draw_confusion(labels, predicted, names, path))


def draw_samples(
    output: Path, dataset: EvalDataset, predictions: Sequence[VideoPrediction], names: Sequence[str]
) -> dict[str, Path]:
    """Draw contact_sheet.png of test samples; return its description and path."""
    sheet = output / "contact_sheet.png"
    return _drawn("contact sheet", sheet, lambda: draw_contact_sheet(_rows(dataset, predictions, names), sheet))


def choose(predictions: Sequence[VideoPrediction], count: int) -> list[VideoPrediction]:
    """Return up to `count` readable videos evenly spread over the test set, at most half of them wrong."""
    read = [p for p in predictions if p.best]
    wrong = _spread([p for p in read if not p.hit(1)], count // 2)
    correct = _spread([p for p in read if p.hit(1)], count - len(wrong))
    return sorted([*wrong, *correct], key=lambda p: p.index)


def _spread(items: list[VideoPrediction], count: int) -> list[VideoPrediction]:
    places = np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)
    return [items[place] for place in places]


def _rows(dataset: EvalDataset, predictions: Sequence[VideoPrediction], names: Sequence[str]) -> list[ClipRow]:
    return [_row(read_again(dataset, p), p, names) for p in choose(predictions, SHEET_ROWS)]


def _row(video: EvalSample, prediction: VideoPrediction, names: Sequence[str]) -> ClipRow:
    best, score = prediction.best[0]
    label = ", ".join(names[number] for number in classes_of(prediction.label))
    return ClipRow(prediction.name, video.preview(), label, names[best], score, prediction.hit(1))


def _drawn(what: str, path: Path, draw: Callable[[], None]) -> dict[str, Path]:
    """Draw a plot and return its description and path; any failure is only logged as a warning."""
    try:
        draw()
    except Exception as error:
        get_logger().warning(f"Cannot draw {path.name}: {error}")
        return {}
    return {what: path}


MISTAKES, MISTAKES_LIST = "mistakes", "mistakes.json"  # folder in OUTPUT_DIR, and the list in it
MISTAKES_COUNT = 24  # mistakes kept
STRIP_FRAME_WIDTH, STRIP_IMAGE_WIDTH = 144, 320  # pixels: width of a frame of a clip, and of a single image
GAP = 2  # pixels between frames
_OF_EVENTS = "events of consecutive parts of the recording; red: brighter, blue: darker"


def draw_mistakes(
    output: Path, dataset: EvalDataset, predictions: Sequence[VideoPrediction], names: Sequence[str]
) -> dict[str, Path]:
    """Write the wrong predictions with the highest scores, highest first; return descriptions and paths.

    Any failure is only logged as a warning, so that the results of the test are kept.

    Args:
        output: OUTPUT_DIR. Its folder mistakes/ is replaced: mistakes.json and a JPEG of frames for each.
        dataset: Test set.
        predictions: Predictions of all samples.
        names: Class names.
    """
    folder = output / MISTAKES
    try:
        with atomic_path(folder, replace_folder=True) as part:
            part.mkdir()
            chosen = most_confident(predictions, MISTAKES_COUNT)
            rows = [_write_mistake(dataset, one, names, part, f"{n:02}.jpg") for n, one in enumerate(chosen, start=1)]
            write_json(part / MISTAKES_LIST, rows)
    except Exception as error:
        get_logger().warning(f"Cannot write {folder}: {error}")
        return {}
    return {"most confident mistakes": folder} if rows else {}


def most_confident(predictions: Sequence[object], count: int) -> list[VideoPrediction]:
    """Return up to `count` wrong predictions of readable samples, highest score first; none for other tasks."""
    wrong = [one for one in predictions if isinstance(one, VideoPrediction) and one.best and not one.hit(1)]
    return sorted(wrong, key=lambda one: (-one.best[0][1], one.index))[:count]


def _write_mistake(
    dataset: EvalDataset, prediction: VideoPrediction, names: Sequence[str], folder: Path, file: str
) -> dict[str, object]:
    sample, (best, score) = read_again(dataset, prediction), prediction.best[0]
    strip = film_strip(sample.preview())
    (folder / file).write_bytes(jpeg(strip))
    return {
        "path": prediction.name,
        "label": [names[label] for label in classes_of(prediction.label)],
        "prediction": names[best],
        "score": round(score, SCORE_DIGITS),
        "frames": file,
        "note": _OF_EVENTS if isinstance(sample, EvalRecording) else "",
    }


def read_again(dataset: EvalDataset, prediction: VideoPrediction) -> EvalSample:
    """Read a sample that was readable during the test. Raises RuntimeError if it no longer is."""
    sample: EvalSample = dataset[prediction.index]
    if not sample.count:
        raise RuntimeError(f"{prediction.name} was readable during the test but no longer is")
    return sample


def film_strip(frames: np.ndarray) -> np.ndarray:
    """Arrange frames uint8 (T, H, W, 3) in a row, at most FRAMES evenly spaced ones, uint8 (h, w, 3)."""
    shown = frames[even_indices(len(frames), FRAMES)]
    width = STRIP_FRAME_WIDTH if len(shown) > 1 else STRIP_IMAGE_WIDTH
    height = max(round(width * shown.shape[1] / shown.shape[2]), 1)
    way = cv2.INTER_AREA if width < shown.shape[2] else cv2.INTER_NEAREST
    images = [cv2.resize(image, (width, height), interpolation=way) for image in shown]
    padded = [np.pad(image, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for image in images]
    return np.concatenate(padded, 1)[:, :-GAP]
