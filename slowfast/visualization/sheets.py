"""Contact sheets of samples: test videos with predictions, first batches."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.build import class_names
from slowfast.datasets.clip_dataset import TestMedia
from slowfast.datasets.dvs.frames import accumulate
from slowfast.datasets.index.labels import classes_of
from slowfast.datasets.types import TestMedium
from slowfast.models.event2vec import MASKED
from slowfast.utils.distributed import World
from slowfast.utils.files import written_whole
from slowfast.utils.logging import get_logger
from slowfast.visualization.confusion import draw_confusion
from slowfast.visualization.metrics_log import Board
from slowfast.visualization.plots import GREEN, GREY, INK, RED, draw_curves, evenly, label_text, new_figure, save_png
from slowfast.visualization.results import Metric, VideoPrediction
from slowfast.visualization.video_writer import FONT, drawable

FRAMES = 6  # shown of each clip
FRAME_WIDTH = 1.25  # inches


@dataclass(frozen=True)
class ClipRow:
    """A clip and what was made of it; frames uint8 (T, H, W, 3), R G B, in time order."""

    name: str
    frames: np.ndarray
    label: str
    prediction: str
    score: float  # of the prediction, in [0, 1]
    correct: bool


def draw_contact_sheet(rows: Sequence[ClipRow], picture: Path) -> None:
    """Draw the clips as a PNG: green where the prediction is right, red where it is wrong.

    Each row shows FRAMES frames evenly from the clip's first to its last. Raises PlotsUnavailable without matplotlib
    and ValueError for no rows.
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
        colour = GREEN if row.correct else RED
        verdict = f"{label_text(row.prediction, 24)}  {100.0 * row.score:.0f} %"
        axes[0].set(xlim=(0.0, 1.0), ylim=(0.0, 1.0))
        axes[0].plot([0.02, 0.02], [0.08, 0.92], color=colour, linewidth=4, solid_capstyle="butt")
        axes[0].text(0.09, 0.72, label_text(row.label, 24), fontsize=10, fontweight="bold", color=INK, va="center")
        axes[0].text(0.09, 0.47, verdict, fontsize=9, color=colour, va="center")
        axes[0].text(0.09, 0.24, label_text(Path(row.name).name, 30), fontsize=6.5, color=GREY, va="center")
        for one, frame in zip(axes[1:], row.frames[_shown(len(row.frames))], strict=True):
            one.imshow(frame, interpolation="antialiased")
    correct = sum(row.correct for row in rows)
    figure.suptitle(
        f"Label, prediction and score; time runs to the right; {correct} correct and {len(rows) - correct} wrong shown",
        fontsize=8,
        color=GREY,
        x=0.01,
        ha="left",
    )
    save_png(figure, picture)


def _shown(frames: int) -> np.ndarray:
    """Which of a clip's frames are shown: int64 (FRAMES,), ascending; a shorter clip repeats some."""
    return np.rint(np.linspace(0, frames - 1, FRAMES)).astype(np.int64)


# shown of a clip, at most
FRAME_SIDE, IMAGE_SIDE = 144, 240  # pixels of a frame's longer side, of an image's or a sensor's; roughly
WIDER = 1.5  # than high: the sheet, as far as the number of samples allows
CLOSE, APART = 4, 18  # pixels between the frames of a sample, between samples
LINE, SCALE = 22, 0.45  # pixels of a line of text, size of its letters
WHITE, TEXT_COLOR, NOTE_COLOR = 255, (34, 34, 34), (119, 119, 119)


@dataclass(frozen=True)
class Look:
    """What it takes to turn inputs into pictures again."""

    mean: Sequence[float]
    std: Sequence[float]
    reverse_channels: bool
    sensor: tuple[int, int]  # height, width; of events

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Look:
        """As DATA and DVS say."""
        data = cfg.DATA
        return cls(tuple(data.MEAN), tuple(data.STD), data.REVERSE_INPUT_CHANNEL, tuple(cfg.DVS.SENSOR_SIZE))


@dataclass(frozen=True)
class Samples:
    """Samples to look at, uint8 (h, w, 3) each, R G B, and a word about how to."""

    pictures: list[np.ndarray]
    note: str


@functools.singledispatch
def samples_of(inputs: Any, count: int, look: Look) -> Samples:
    """The first `count` samples of a network's inputs; TypeError for a kind of input that is not registered here."""
    raise TypeError(f"no picture is registered for inputs of {type(inputs).__name__}")


@samples_of.register(torch.Tensor)
def _frames(inputs: torch.Tensor, count: int, look: Look) -> Samples:
    """Clips (N, 3, T, H, W), some frames of each in a row, or images (N, 3, H, W)."""
    shown = inputs[:count].detach()
    if shown.dim() == 4:
        images = pixels(shown[:, :, None], look)[:, 0]  # N H W 3
        return Samples([_fit(image, IMAGE_SIDE) for image in images], "")
    clips = pixels(shown[:, :, evenly(shown.shape[2], FRAMES).tolist()], look)  # N t H W 3
    return Samples(
        [_row_of_images([_fit(frame, FRAME_SIDE) for frame in clip]) for clip in clips], "time runs to the right"
    )


@samples_of.register(dict)
def _events(inputs: dict[str, torch.Tensor], count: int, look: Look) -> Samples:
    """Events x, y, t, p, valid (N, L): all of a sample in one picture of the sensor; masked ones are left out."""
    seen = inputs["valid"] & ~inputs[MASKED] if MASKED in inputs else inputs["valid"]
    pictures = []
    for place in range(min(count, len(seen))):
        x, y, t, p = (inputs[key][place, seen[place]].cpu().numpy() for key in "xytp")
        sensor = _fit(accumulate(x, y, t, p, look.sensor, frames=1)[0], IMAGE_SIDE)
        pictures.append(cv2.copyMakeBorder(sensor, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=NOTE_COLOR))
    return Samples(pictures, "red brighter, blue darker")


def pixels(clips: torch.Tensor, look: Look) -> np.ndarray:
    """uint8 (N, T, H, W, 3), R G B, of normalized clips (N, 3, T, H, W)."""
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (look.mean, look.std))
    clips = (clips.float().cpu() * std + mean).mul(255).round().clamp(0, 255).byte()
    return (clips.flip(1) if look.reverse_channels else clips).movedim(1, -1).numpy()


def captions(targets: torch.Tensor, names: Sequence[str], count: int) -> list[str]:
    """Return a caption for each of the first `count` targets.

    Args:
        targets: Class indices (N,), soft labels (N, K), of which two that are mixed are shown with their shares, or any
            other numbers (N,).
        names: Class names.
        count: Number of captions at most.
    """
    targets = targets[:count].detach().cpu()
    if targets.dim() == 1:
        if targets.is_floating_point():
            return [f"{value:.4g}" for value in targets.tolist()]
        return [names[label] for label in targets.tolist()]
    weights = targets.double() - targets.double().amin(1, keepdim=True)  # what is smoothed over all classes is no share
    weights = weights / weights.sum(1, keepdim=True)
    texts = []
    for row in weights:
        shares, labels = row.topk(min(2, len(row)))
        mixed = [(s, names[k]) for s, k in zip(shares.tolist(), labels.tolist(), strict=True) if s > 0.005]
        texts.append(mixed[0][1] if len(mixed) == 1 else " + ".join(f"{share:.2f} {name}" for share, name in mixed))
    return texts


def draw_sheet(pictures: Sequence[np.ndarray], texts: Sequence[str], title: str) -> np.ndarray:
    """A white sheet uint8 (h, w, 3) of pictures with a text under each, and a title above."""
    cells = [
        _column([picture, _text(text, picture.shape[1], TEXT_COLOR)])
        for text, picture in zip(texts, pictures, strict=True)
    ]
    columns = _columns(len(cells), max(cell.shape[0] for cell in cells), max(cell.shape[1] for cell in cells))
    rows = [_row_of_images(cells[at : at + columns], APART) for at in range(0, len(cells), columns)]
    sheet = _column(rows)
    sheet = _column([_text(title, max(sheet.shape[1], 420), NOTE_COLOR), sheet])
    return np.pad(sheet, ((CLOSE, CLOSE), (APART, APART), (0, 0)), constant_values=WHITE)


def _columns(count: int, height: int, width: int) -> int:
    """Into how many columns cells of this size go for a sheet about WIDER than high."""

    def off(columns: int) -> float:
        return abs(math.log(columns * width / (-(-count // columns) * height) / WIDER))

    return min(range(1, count + 1), key=off)


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    """The image about as large as `side`: shrunk, or enlarged by a whole number."""
    factor = side / max(image.shape[:2])
    if factor < 1:
        size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return image.repeat(int(factor), 0).repeat(int(factor), 1)


def _row_of_images(images: Sequence[np.ndarray], gap: int = CLOSE) -> np.ndarray:
    """Images side by side, a gap between (pixels)."""
    height = max(image.shape[0] for image in images)
    last = len(images) - 1
    padded = [
        np.pad(image, ((0, height - image.shape[0]), (0, gap if place < last else 0), (0, 0)), constant_values=WHITE)
        for place, image in enumerate(images)
    ]
    return np.concatenate(padded, 1)


def _column(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images one beneath the other, a gap between."""
    return np.ascontiguousarray(_row_of_images([image.swapaxes(0, 1) for image in images]).swapaxes(0, 1))


def _text(text: str, width: int, colour: tuple[int, int, int]) -> np.ndarray:
    """A line of text as an image, cut where it is longer than `width` pixels."""
    line = drawable(" ".join(text.split()))
    while line and cv2.getTextSize(line, FONT, SCALE, 1)[0][0] > width:
        line = line.removesuffix("...")[:-1] + "..." if line != "..." else ""
    image = np.full((LINE, width, 3), WHITE, np.uint8)
    cv2.putText(image, line, (0, LINE - 7), FONT, SCALE, colour, 1, cv2.LINE_AA)
    return image


Captions = Callable[[torch.Tensor, Sequence[str], int], list[str]]


class FirstBatch:
    """Callable that draws a batch to a PNG and, if it is on, TensorBoard.

    Args:
        name: Split of the batch, for the file name.
        count: Number of samples to draw at most.
        look: Inverse of the normalization.
        names: Class names.
        folder: Folder of the PNG.
        board: TensorBoard; None for none.
        describe: Function of the targets, the class names and the count that returns a caption per sample.
    """

    def __init__(
        self,
        name: str,
        count: int,
        look: Look,
        names: Sequence[str],
        folder: Path,
        board: Board | None,
        describe: Captions = captions,
    ) -> None:
        self.name, self.count, self.look, self.names, self.describe = name, count, look, names, describe
        self.file, self.board = folder / f"first_batch_{name}.png", board

    @classmethod
    def from_config(
        cls, cfg: ConfigNode, world: World, split: str, board: Board | None, describe: Captions = captions
    ) -> FirstBatch | None:
        """Build for DATA_LOADER.DRAW_SAMPLES samples and OUTPUT_DIR; None for 0 samples and in other processes."""
        count = cfg.DATA_LOADER.DRAW_SAMPLES
        if not count or not world.is_main:
            return None
        return cls(split, count, Look.from_config(cfg), class_names(cfg, split), Path(cfg.OUTPUT_DIR), board, describe)

    def __call__(self, inputs: Any, targets: torch.Tensor) -> None:
        """Draw a network's inputs and their labels (N,) or soft labels (N, K). A failure is a warning."""
        try:
            self._draw(inputs, targets)
        except Exception as error:
            get_logger().warning(f"{self.file.name} is not drawn: {error}")

    def _draw(self, inputs: Any, targets: torch.Tensor) -> None:
        samples = samples_of(inputs, self.count, self.look)
        title = f"{self.name}: {len(samples.pictures)} of the first {len(targets)} samples, as the network gets them"
        title += f"; {samples.note}" if samples.note else ""
        sheet = draw_sheet(samples.pictures, self.describe(targets, self.names, self.count), title)
        save_image(sheet, self.file)
        if self.board is not None:
            self.board.picture(f"first_batch/{self.name}", sheet, step=0)
        get_logger().info(f"samples of the first batch ({self.name}): {self.file}")


def save_image(image: np.ndarray, path: Path) -> None:
    """Write uint8 (h, w, 3), R G B, as a PNG, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))[1].tobytes())


SHEET_ROWS = 10


def draw_training_curves(output: Path, metric: Metric | None) -> dict[str, Path]:
    """Draw curves.png of metrics.jsonl and a metric of the validations; return its description and path."""
    picture = output / "curves.png"
    return _drawn("training curves", picture, lambda: draw_curves(output / "metrics.jsonl", picture, metric))


def draw_confusion_matrix(
    output: Path, predictions: Sequence[VideoPrediction], names: Sequence[str]
) -> dict[str, Path]:
    """Draw confusion.png of predictions with one class per sample; return its description and path."""
    picture = output / "confusion.png"
    labels, predicted = [p.label for p in predictions], [p.prediction for p in predictions]
    return _drawn("confusion matrix", picture, lambda: draw_confusion(labels, predicted, names, picture))


def draw_samples(
    output: Path, dataset: TestMedia, predictions: Sequence[VideoPrediction], names: Sequence[str]
) -> dict[str, Path]:
    """Draw contact_sheet.png of test samples; return its description and path."""
    sheet = output / "contact_sheet.png"
    return _drawn("contact sheet", sheet, lambda: draw_contact_sheet(_rows(dataset, predictions, names), sheet))


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
    best, score = prediction.best[0]
    label = ", ".join(names[number] for number in classes_of(prediction.label))
    return ClipRow(prediction.name, video.picture(), label, names[best], score, prediction.hit(1))


def _drawn(what: str, picture: Path, draw: Callable[[], None]) -> dict[str, Path]:
    """Draw a figure; one that cannot be drawn for any reason is a warning, as it must not cost a run its results."""
    try:
        draw()
    except Exception as error:
        get_logger().warning(f"{picture.name} is not drawn: {error}")
        return {}
    return {what: picture}
