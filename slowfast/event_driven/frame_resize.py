"""Resizing of frames to the square input of the network.

Notation: H x W pixels of a frame, P pixels per side of the network's input, K frames.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import islice
from typing import NamedTuple

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.datasets.base import FrameDataset
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.resample import Color, nearly_antialiased, resize_plain
from slowfast.datasets.transforms import ViewTransform, mean_color, scaled_size
from slowfast.event_driven.captures import OpenVideo
from slowfast.event_driven.sources import Source

SQUASH, CROP, LETTERBOX = "squash", "crop", "letterbox"
RESIZES = (SQUASH, CROP, LETTERBOX)


class Frame(NamedTuple):
    """Frame at the network's resolution."""

    tick: int  # time at which it is shown
    image: np.ndarray  # RGB, uint8 (P, P, 3)
    arrived: float  # perf_counter() when its data arrived from a live source; 0 for files


class FrameResize:
    """Transform of a frame to the network's input of P x P pixels.

    Args:
        how: ``squash`` scales the full frame to the square, bilinear without antialiasing as the published script
            (i-evi/evMLP, eval_video_dir.py); ``crop`` scales the short side and takes the center; ``letterbox`` keeps
            the full frame and its aspect ratio and fills the rest.
        view: Scaling and center crop of the evaluation.
        fill: RGB color around a letterboxed frame.
    """

    def __init__(self, how: str, view: ViewTransform, fill: Color) -> None:
        self.how, self.view, self.fill = how, view, fill
        self.side = view.crop_size

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> FrameResize:
        """Build from EVENT.RESIZE; a letterbox is filled with DATA.MEAN.

        ``crop`` and ``letterbox`` interpolate as the evaluation of the test dataset. Antialiasing uses a faster
        implementation, whose pixels differ by one or two levels in a few places.
        """
        dataset = find_dataset(cfg, TEST)
        assert isinstance(dataset, FrameDataset)  # the network's input size has been checked
        view = dataset.view_transform(1)
        if dataset.reads_images:
            view.resize = nearly_antialiased(cfg.DATA.IN_VAL_INTERPOLATION)
        return cls(cfg.EVENT.RESIZE, view, mean_color(cfg.DATA.MEAN[:: -1 if cfg.DATA.REVERSE_INPUT_CHANNEL else 1]))

    def __call__(self, image: np.ndarray, pixel_aspect: float = 1.0) -> np.ndarray:
        """Resize a frame.

        Args:
            image: RGB frame, uint8 (H, W, 3).
            pixel_aspect: Width of a pixel divided by its height. The crop and the letterbox show square pixels.

        Returns:
            The network's input, uint8 (P, P, 3).
        """
        side = self.side
        if self.how == SQUASH:
            return resize_plain(image[None], side, side)[0]
        height, width = image.shape[0], max(1, round(image.shape[1] * pixel_aspect))
        if self.how == CROP:
            scaled, [(top, left)] = self.view(self._resized(image, *scaled_size(height, width, self.view.short_side)))
            return scaled[0, top : top + side, left : left + side]
        scale = side / max(height, width)
        height, width = max(1, round(scale * height)), max(1, round(scale * width))
        top, left = (side - height) // 2, (side - width) // 2
        square = np.full((side, side, 3), self.fill, np.uint8)
        square[top : top + height, left : left + width] = self._resized(image, height, width)[0]
        return square

    def _resized(self, image: np.ndarray, height: int, width: int) -> np.ndarray:
        """Resize uint8 (H, W, 3) -> (1, height, width, 3)."""
        return image[None] if image.shape[:2] == (height, width) else self.view.resize(image[None], height, width)


def resized_frames(video: OpenVideo, transform: FrameResize, limit: int) -> Generator[Frame]:
    """Yield up to `limit` frames (0: all) at the network's resolution."""
    for tick, image in islice(video, limit or None):
        yield Frame(tick, transform(image, video.pixel_aspect), video.arrived)


def read_frames(source: Source, transform: FrameResize, limit: int) -> tuple[np.ndarray, str | None]:
    """Read the first frames of a video at the network's resolution.

    Args:
        source: Video to read.
        transform: Resizes the frames.
        limit: Largest number of frames; 0 for all.

    Returns:
        Frames uint8 (K, P, P, 3), and a description of what could not be read.

    Raises:
        DecodeError: If there is no frame. Other errors of FFmpeg or the system are failures of the video, too.
    """
    video = source.open()
    try:
        images = [frame.image for frame in resized_frames(video, transform, limit)]
        missing = video.missing
    finally:
        video.close()
    if not images:
        raise DecodeError("no frame can be decoded")
    return np.stack(images), missing
