"""The first batch as the model sees it: inputs converted back to images, with a caption per sample."""

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
from slowfast.datasets.dvs.frames import accumulate
from slowfast.models.protocol import MASKED
from slowfast.utils.distributed import World
from slowfast.utils.files import atomic_path
from slowfast.utils.logging import get_logger
from slowfast.visualization.plots import even_indices
from slowfast.visualization.video_writer import FONT, to_drawable

FRAMES = 6  # frames drawn per clip
FRAME_SIDE, IMAGE_SIDE = 144, 240  # approximate pixels of the longer side of a frame, and of an image or a sensor
ASPECT_RATIO = 1.5  # target width / height of the sheet
FRAME_GAP, SAMPLE_GAP = 4, 18  # pixels between the frames of a sample, and between samples
LINE_HEIGHT, FONT_SCALE = 22, 0.45  # height of a line of text in pixels, and font scale
WHITE, TEXT_COLOR, NOTE_COLOR = 255, (34, 34, 34), (119, 119, 119)


@dataclass(frozen=True)
class Denormalize:
    """Inverse of the normalization of clips, and the sensor size of events.

    Attributes:
        mean: DATA.MEAN.
        std: DATA.STD.
        reverse_channels: DATA.REVERSE_INPUT_CHANNEL.
        sensor: Height and width of the event sensor in pixels.
    """

    mean: Sequence[float]
    std: Sequence[float]
    reverse_channels: bool
    sensor: tuple[int, int]

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> Denormalize:
        """Build from DATA and DVS."""
        data = cfg.DATA
        return cls(tuple(data.MEAN), tuple(data.STD), data.REVERSE_INPUT_CHANNEL, tuple(cfg.DVS.SENSOR_SIZE))


@dataclass(frozen=True)
class SampleImages:
    """Images of samples, uint8 (h, w, 3) RGB each, and a note on how to read them."""

    images: list[np.ndarray]
    note: str


@functools.singledispatch
def sample_images(inputs: Any, count: int, denormalize: Denormalize) -> SampleImages:
    """Return images of the first `count` samples of a model's inputs; TypeError for an unknown type of inputs."""
    raise TypeError(f"cannot draw inputs of type {type(inputs).__name__}")


@sample_images.register(torch.Tensor)
def _frames(inputs: torch.Tensor, count: int, denormalize: Denormalize) -> SampleImages:
    """Draw clips (N, 3, T, H, W) as a row of frames, and images (N, 3, H, W) as they are."""
    shown = inputs[:count].detach()
    if shown.dim() == 4:
        images = pixels(shown[:, :, None], denormalize)[:, 0]  # N H W 3
        return SampleImages([_fit(image, IMAGE_SIDE) for image in images], "")
    clips = pixels(shown[:, :, even_indices(shown.shape[2], FRAMES).tolist()], denormalize)  # N t H W 3
    return SampleImages(
        [_row_of_images([_fit(frame, FRAME_SIDE) for frame in clip]) for clip in clips], "time runs from left to right"
    )


@sample_images.register(dict)
def _events(inputs: dict[str, torch.Tensor], count: int, denormalize: Denormalize) -> SampleImages:
    """Draw all events of a sample (N, L), except masked ones, in one image of the sensor."""
    visible = inputs["valid"] & ~inputs[MASKED] if MASKED in inputs else inputs["valid"]
    images = []
    for place in range(min(count, len(visible))):
        x, y, t, p = (inputs[key][place, visible[place]].cpu().numpy() for key in "xytp")
        sensor = _fit(accumulate(x, y, t, p, denormalize.sensor, frames=1)[0], IMAGE_SIDE)
        images.append(cv2.copyMakeBorder(sensor, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=NOTE_COLOR))
    return SampleImages(images, "red: brighter, blue: darker")


def pixels(clips: torch.Tensor, denormalize: Denormalize) -> np.ndarray:
    """Convert normalized clips (N, 3, T, H, W) back to uint8 RGB (N, T, H, W, 3)."""
    mean, std = (torch.tensor(values)[:, None, None, None] for values in (denormalize.mean, denormalize.std))
    clips = (clips.float().cpu() * std + mean).mul(255).round().clamp(0, 255).byte()
    return (clips.flip(1) if denormalize.reverse_channels else clips).movedim(1, -1).numpy()


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
    weights = targets.double() - targets.double().amin(1, keepdim=True)  # without label smoothing
    weights = weights / weights.sum(1, keepdim=True)
    texts = []
    for row in weights:
        shares, labels = row.topk(min(2, len(row)))
        mixed = [(s, names[k]) for s, k in zip(shares.tolist(), labels.tolist(), strict=True) if s > 0.005]
        texts.append(mixed[0][1] if len(mixed) == 1 else " + ".join(f"{share:.2f} {name}" for share, name in mixed))
    return texts


def draw_sheet(images: Sequence[np.ndarray], texts: Sequence[str], title: str) -> np.ndarray:
    """Return a white sheet uint8 (h, w, 3) of images with a caption below each and a title above."""
    cells = [
        _column([image, _text(text, image.shape[1], TEXT_COLOR)]) for text, image in zip(texts, images, strict=True)
    ]
    columns = _columns(len(cells), max(cell.shape[0] for cell in cells), max(cell.shape[1] for cell in cells))
    rows = [_row_of_images(cells[at : at + columns], SAMPLE_GAP) for at in range(0, len(cells), columns)]
    sheet = _column(rows)
    sheet = _column([_text(title, max(sheet.shape[1], 420), NOTE_COLOR), sheet])
    return np.pad(sheet, ((FRAME_GAP, FRAME_GAP), (SAMPLE_GAP, SAMPLE_GAP), (0, 0)), constant_values=WHITE)


def _columns(count: int, height: int, width: int) -> int:
    """Return the number of columns of a grid of cells whose aspect ratio is closest to ASPECT_RATIO."""

    def error(columns: int) -> float:
        return abs(math.log(columns * width / (-(-count // columns) * height) / ASPECT_RATIO))

    return min(range(1, count + 1), key=error)


def _fit(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image so that its longer side is about `side` pixels: shrink it, or enlarge it by an integer factor."""
    factor = side / max(image.shape[:2])
    if factor < 1:
        size = (max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1))
        return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    return image.repeat(int(factor), 0).repeat(int(factor), 1)


def _row_of_images(images: Sequence[np.ndarray], gap: int = FRAME_GAP) -> np.ndarray:
    """Concatenate images horizontally, with a gap in pixels."""
    height = max(image.shape[0] for image in images)
    last = len(images) - 1
    padded = [
        np.pad(image, ((0, height - image.shape[0]), (0, gap if place < last else 0), (0, 0)), constant_values=WHITE)
        for place, image in enumerate(images)
    ]
    return np.concatenate(padded, 1)


def _column(images: Sequence[np.ndarray]) -> np.ndarray:
    """Concatenate images vertically, with a gap."""
    return np.ascontiguousarray(_row_of_images([image.swapaxes(0, 1) for image in images]).swapaxes(0, 1))


def _text(text: str, width: int, color: tuple[int, int, int]) -> np.ndarray:
    """Render a line of text as an image; text that is wider than `width` pixels is cut."""
    line = to_drawable(" ".join(text.split()))
    while line and cv2.getTextSize(line, FONT, FONT_SCALE, 1)[0][0] > width:
        line = line.removesuffix("...")[:-1] + "..." if line != "..." else ""
    image = np.full((LINE_HEIGHT, width, 3), WHITE, np.uint8)
    cv2.putText(image, line, (0, LINE_HEIGHT - 7), FONT, FONT_SCALE, color, 1, cv2.LINE_AA)
    return image


Captions = Callable[[torch.Tensor, Sequence[str], int], list[str]]
Record = Callable[[str, np.ndarray], None]  # called with a tag and an image uint8 (h, w, 3) RGB


class FirstBatch:
    """Callable that draws a batch to a PNG and to the trackers.

    Args:
        name: Split of the batch, for the file name.
        count: Number of samples to draw at most.
        denormalize: Inverse of the normalization of the clips.
        names: Class names.
        folder: Folder of the PNG.
        record: Records the image in the trackers.
        describe: Function of the targets, the class names and the count that returns a caption per sample.
    """

    def __init__(
        self,
        name: str,
        count: int,
        denormalize: Denormalize,
        names: Sequence[str],
        folder: Path,
        record: Record,
        describe: Captions = captions,
    ) -> None:
        self.name, self.count, self.denormalize, self.names, self.describe = name, count, denormalize, names, describe
        self.file, self.record = folder / f"first_batch_{name}.png", record

    @classmethod
    def from_config(
        cls, cfg: ConfigNode, world: World, split: str, record: Record, describe: Captions = captions
    ) -> FirstBatch | None:
        """Build for DATA_LOADER.DRAW_SAMPLES samples and OUTPUT_DIR; None for 0 samples and in other processes."""
        count = cfg.DATA_LOADER.DRAW_SAMPLES
        if not count or not world.is_main:
            return None
        return cls(
            split, count, Denormalize.from_config(cfg), class_names(cfg, split), Path(cfg.OUTPUT_DIR), record, describe
        )

    def __call__(self, inputs: Any, targets: torch.Tensor) -> None:
        """Draw the inputs and targets of a batch; a failure is only logged as a warning."""
        try:
            self._draw(inputs, targets)
        except Exception as error:
            get_logger().warning(f"Cannot draw {self.file.name}: {error}")

    def _draw(self, inputs: Any, targets: torch.Tensor) -> None:
        samples = sample_images(inputs, self.count, self.denormalize)
        title = f"{self.name}: {len(samples.images)} of the {len(targets)} samples of the first batch, as model inputs"
        title += f"; {samples.note}" if samples.note else ""
        sheet = draw_sheet(samples.images, self.describe(targets, self.names, self.count), title)
        save_image(sheet, self.file)
        self.record(f"first_batch/{self.name}", sheet)
        get_logger().info(f"Saved the first {self.name} batch to {self.file}")


def save_image(image: np.ndarray, path: Path) -> None:
    """Write an image uint8 (h, w, 3) RGB as a PNG, completely or not at all."""
    with atomic_path(path) as partial:
        partial.write_bytes(cv2.imencode(".png", np.ascontiguousarray(image[:, :, ::-1]))[1].tobytes())
