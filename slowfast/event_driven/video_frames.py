"""Frames of video files, network streams and cameras in order, and their resizing to the input of the network.

Notation: H x W pixels of a frame, P pixels per side of the network's input.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import av
import cv2
import numpy as np
from cv2.utils import logging

from slowfast.config.node import ConfigNode
from slowfast.datasets.base import FrameDataset
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode.container import choose_timing
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter, frame_matrix, orientation_of
from slowfast.datasets.resample import Color, nearly_antialiased, resize_plain
from slowfast.datasets.transforms import ViewTransform, mean_color, scaled_size
from slowfast.datasets.types import failure_reason

SQUASH, CROP, LETTERBOX = "squash", "crop", "letterbox"
RESIZES = (SQUASH, CROP, LETTERBOX)
_TIMEOUT = 10.0  # seconds for a stream to open and for its next data
_MAX_BAD = 1000  # consecutive packets that cannot be decoded; more than a keyframe interval
_DEFAULT_RATE = 25  # frames/s of streams and cameras that do not report it
_MAX_PIXEL_ASPECT = 8  # largest pixel aspect ratio and its reciprocal; beyond, the header is damaged


class OpenVideo(Protocol):
    """Open video. Opening and iterating raise DecodeError or errors of FFmpeg.

    Attributes:
        rate: Nominal frames/s.
        time_base: Seconds per tick.
        pixel_aspect: Width of a pixel of the last upright frame divided by its height.
        arrived: perf_counter() when the data of the last frame had arrived from a live source; 0 for files.
    """

    rate: Fraction
    time_base: Fraction
    pixel_aspect: float
    arrived: float

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the tick at which each frame is shown, and the RGB frame, uint8 (H, W, 3)."""

    @property
    def missing(self) -> str | None:
        """Description of what could not be read; valid after the last frame."""

    def close(self) -> None: ...


class FileFrames:
    """Frames of a file, decoded sequentially."""

    arrived = 0.0

    def __init__(self, path: Path, threads: int) -> None:
        self.pixel_aspect = 1.0
        self._reader = PyAVReader(path, threads)
        timing = choose_timing(self._reader.times(), self._reader.fps, None)
        self.rate, self.time_base, self._ticks = timing.rate, timing.time_base, timing.ticks

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        convert = RgbConverter()
        for number, frame in self._reader.every_frame():
            self.pixel_aspect = _upright_aspect(self._reader.pixel_aspect, frame)
            yield int(self._ticks[number]), convert(frame)

    @property
    def missing(self) -> str | None:
        return self._reader.error or self._reader.truncation

    def close(self) -> None:
        self._reader.close()


class StreamFrames:
    """Frames of a network stream that FFmpeg opens; packets that cannot be decoded are skipped.

    The frame size may change, for example if the settings of a camera are changed.
    """

    def __init__(self, address: str) -> None:
        self.pixel_aspect, self.arrived = 1.0, 0.0
        try:
            self._container = av.open(address, timeout=_TIMEOUT)
        except (av.FFmpegError, OSError) as error:
            raise DecodeError(f"the stream cannot be opened: {_stream_error(error)}") from error
        if not self._container.streams.video:
            self._container.close()
            raise DecodeError("the stream has no video")
        rate = self._container.streams.video[0].average_rate
        self.rate = Fraction(rate) if rate else Fraction(_DEFAULT_RATE)
        self.time_base = 1 / self.rate
        self._bad, self._bad_in_a_row, self._first_error = 0, 0, ""  # packets that cannot be decoded

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        convert, size = RgbConverter(), (0, 0)
        stream = self._container.streams.video[0]
        try:
            frames = (frame for packet in self._container.demux(stream) for frame in self._decoded(packet))
            for number, frame in enumerate(frames):
                if size != (frame.width, frame.height):
                    convert, size = RgbConverter(), (frame.width, frame.height)
                self.pixel_aspect = _upright_aspect(stream.sample_aspect_ratio, frame)
                yield number, convert(frame)
        except (av.FFmpegError, OSError) as error:
            raise DecodeError(f"the stream was interrupted: {_stream_error(error)}") from error

    def _decoded(self, packet: av.Packet) -> Sequence[av.VideoFrame]:
        self.arrived = time.perf_counter()
        try:
            frames = packet.decode()
            self._bad_in_a_row = 0 if frames else self._bad_in_a_row
            return frames
        except av.FFmpegError as error:
            self._bad, self._bad_in_a_row = self._bad + 1, self._bad_in_a_row + 1
            self._first_error = self._first_error or failure_reason(error)
            if self._bad_in_a_row == _MAX_BAD:
                raise DecodeError(f"{_MAX_BAD} consecutive packets cannot be decoded: {self._first_error}") from error
            return []

    @property
    def missing(self) -> str | None:
        return f"{self._bad} packets cannot be decoded: {self._first_error}" if self._bad else None

    def close(self) -> None:
        self._container.close()


def _upright_aspect(stored: Fraction | None, frame: av.VideoFrame) -> float:
    """Return the width of a pixel divided by its height, after the rotation specified by a frame.

    Args:
        stored: This ratio for the stored frame; None or 0 if unknown.
        frame: Decoded frame.
    """
    aspect = float(stored or 1)
    if aspect == 1 or not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
        return 1.0
    return 1 / aspect if orientation_of(frame_matrix(frame)).transpose else aspect


def _stream_error(error: av.FFmpegError | OSError) -> str:
    """Describe an error; FFmpeg reports its own timeout as an exit."""
    return f"no data for {_TIMEOUT:g} seconds" if isinstance(error, av.ExitError) else failure_reason(error)


class CameraFrames:
    """Frames of a camera of this machine."""

    missing: str | None = None
    pixel_aspect = 1.0

    def __init__(self, number: int) -> None:
        self.arrived = 0.0
        level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # the error is raised below, so OpenCV must not log it
        try:
            self._capture = cv2.VideoCapture(number)
        finally:
            logging.setLogLevel(level)
        if not self._capture.isOpened():
            self._capture.release()
            raise DecodeError(f"camera {number} cannot be opened: it is not connected, in use or not permitted")
        self.rate = Fraction(round(self._capture.get(cv2.CAP_PROP_FPS)) or _DEFAULT_RATE)
        self.time_base = 1 / self.rate

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        number = 0
        while True:
            grabbed = self._capture.grab()
            self.arrived = time.perf_counter()
            success, image = self._capture.retrieve()
            if not (grabbed and success):
                raise DecodeError("the camera delivers no more frames")
            yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            number += 1

    def close(self) -> None:
        self._capture.release()


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
