"""The videos of event-driven inference: files, cameras and streams, each as its frames in order.

H x W pixels of a frame, S pixels of the side of the network's square input.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np
from cv2.utils import logging

from slowfast.config.node import ConfigNode
from slowfast.datasets.base import FrameDataset
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.decode.timing import choose_timing
from slowfast.datasets.index.common import read_lines
from slowfast.datasets.index.media import UNLABELLED, Wanted, find_media
from slowfast.datasets.resample import Color, nearly_antialiased, resize_plain
from slowfast.datasets.transforms import ViewTransform, mean_color
from slowfast.datasets.types import Failure, Record, failure_reason
from slowfast.errors import DataError
from slowfast.event_driven.mode import check_address, is_address, is_camera
from slowfast.models.inputs import IMAGES
from slowfast.utils.text import redact

SQUASH, CROP, LETTERBOX = "squash", "crop", "letterbox"
RESIZES = (SQUASH, CROP, LETTERBOX)


class FrameToSquare:
    """Transform of a frame to the S x S pixels that the network sees.

    Args:
        how: ``squash`` scales the whole frame to the square, bilinear without antialiasing as the published script
            (i-evi/evMLP, eval_video_dir.py); ``crop`` scales the short side and takes the center; ``letterbox`` keeps
            the whole frame and its proportions and fills the rest.
        view: Scaling and center crop of the evaluation.
        fill: RGB color around a letterboxed frame.
    """

    def __init__(self, how: str, view: ViewTransform, fill: Color) -> None:
        self.how, self.view, self.fill = how, view, fill
        self.side = view.crop_size

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> FrameToSquare:
        """Build the transform of EVENT.RESIZE; a letterbox is filled with DATA.MEAN.

        ``crop`` and ``letterbox`` interpolate as the evaluation of the test dataset. Images are antialiased by a faster
        implementation than there, equal to a level or two in a few pixels.
        """
        dataset = find_dataset(cfg, TEST)
        assert isinstance(dataset, FrameDataset)  # the network's input was checked
        view = dataset.view_transform(1)
        if dataset.input_kind == IMAGES:
            view.resize = nearly_antialiased(cfg.DATA.IN_VAL_INTERPOLATION)
        return cls(cfg.EVENT.RESIZE, view, mean_color(cfg.DATA.MEAN[:: -1 if cfg.DATA.REVERSE_INPUT_CHANNEL else 1]))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Return the network's view, uint8 (S, S, 3), of an RGB frame, uint8 (H, W, 3)."""
        side = self.side
        if self.how == CROP:
            scaled, [(top, left)] = self.view(image[None])
            return scaled[0, top : top + side, left : left + side]
        if self.how == SQUASH:
            return resize_plain(image[None], side, side)[0]
        height, width = image.shape[:2]
        scale = side / max(height, width)
        height, width = max(1, round(scale * height)), max(1, round(scale * width))
        top, left = (side - height) // 2, (side - width) // 2
        square = np.full((side, side, 3), self.fill, np.uint8)
        square[top : top + height, left : left + width] = self.view.resize(image[None], height, width)[0]
        return square


# Images among the videos are listed with this reason.
_VIDEOS_ONLY = Wanted(False, "", "", "event-driven inference is for videos")
LIST = ".txt"
_WAIT = 10.0  # seconds for a stream to open and for its next data
_MOST_BAD = 1000  # packets in a row that cannot be decoded: more than stand between two key frames
_USUAL_RATE = 25  # frames a second, of streams and cameras that do not tell


class OpenVideo(Protocol):
    """A video that is being read. Iterating and opening raise DecodeError or FFmpeg's errors."""

    rate: Fraction  # frames a second, nominal
    time_base: Fraction  # seconds of a tick

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """Every frame, uint8 (H, W, 3), R G B, and the tick from which on it is shown."""

    @property
    def missing(self) -> str | None:
        """After the last frame: what could not be read."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Source:
    """A video to look at. `live`: it need not ever end."""

    record: Record
    open: Callable[[], OpenVideo]
    live: bool = False


@dataclass(frozen=True)
class Sources:
    """What was found; `refused` are no videos, `others` the number of files left out that have no video's name."""

    videos: list[Source]
    refused: list[Failure]
    others: int = 0

    @property
    def count(self) -> int:
        """All that should have been read."""
        return len(self.videos) + len(self.refused)


def find_sources(place: str, threads: int) -> Sources:
    """The videos of a folder and the folders in it, a file, the number of a camera, the address of a stream, or a list.

    A list is a .txt file of such places, one a line; files are looked for from its folder on. Raises DataError.
    """
    live = _live(0, place)
    if live is not None:
        return Sources([live], [])
    path = Path(place)
    return _listed(path, threads) if path.suffix == LIST and path.is_file() else find_files([path], threads)


def _live(index: int, place: str) -> Source | None:
    """Make a camera or a stream of a place. Its record, which reports show, has no password; only `open` has it."""
    name = redact(place)
    record = Record(index, Path(name), name, UNLABELLED)
    if is_camera(place):
        return Source(record, functools.partial(CameraFrames, int(place)), live=True)
    if is_address(place):
        check_address(place)
        return Source(record, functools.partial(StreamFrames, place), live=True)
    return None


def _listed(path: Path, threads: int) -> Sources:
    sources: list[Source] = []
    for number, place in read_lines(path, "name the places of the videos in it, one a line"):
        if place.startswith("#"):
            continue
        source = _live(len(sources), place)
        if source is None:
            file = path.parent / place
            if not file.is_file():
                raise DataError(f"{path} line {number}: {place} is no file, camera's number or stream's address")
            record = Record(len(sources), file, place, UNLABELLED)
            source = Source(record, functools.partial(FileFrames, file, threads))
        sources.append(source)
    if not sources:
        raise DataError(f"{path}: the list names no video, camera or stream")
    return Sources(sources, [])


def find_files(paths: Iterable[Path], threads: int) -> Sources:
    """The videos of files and folders; `threads` are the decoder's."""
    found = find_media(paths, _VIDEOS_ONLY)
    videos = [Source(record, functools.partial(FileFrames, record.path, threads)) for record in found.records]
    return Sources(videos, found.refused, found.others)


def squares(video: OpenVideo, transform: FrameToSquare, limit: int) -> Generator[tuple[int, np.ndarray]]:
    """Yield the tick of each frame and what the network sees of it, uint8 (S, S, 3); `limit` frames at most, 0: all."""
    for tick, image in islice(video, limit or None):
        yield tick, transform(image)


def read_squares(source: Source, transform: FrameToSquare, limit: int) -> tuple[np.ndarray, str | None]:
    """Return the network's view uint8 (K, S, S, 3) of a video's first frames, and what of them could not be read.

    Raises:
        DecodeError: If there is none. Any other exception is the video's failure, too.
    """
    video = source.open()
    try:
        images = [image for _, image in squares(video, transform, limit)]
        missing = video.missing
    finally:
        video.close()
    if not images:
        raise DecodeError("no frame can be decoded")
    return np.stack(images), missing


class FileFrames:
    """The frames of a file, decoded once from its start to its end."""

    def __init__(self, path: Path, threads: int) -> None:
        self._reader = PyAVReader(path, threads)
        timing = choose_timing(self._reader.times(), self._reader.fps, None)
        self.rate, self.time_base, self._ticks = timing.rate, timing.time_base, timing.ticks

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        convert = RgbConverter()
        for number, frame in self._reader.every_frame():
            yield int(self._ticks[number]), convert(frame)

    @property
    def missing(self) -> str | None:
        return self._reader.error or self._reader.cut_off

    def close(self) -> None:
        self._reader.close()


class StreamFrames:
    """The frames of a stream that FFmpeg opens by its address; packets that cannot be decoded are left out."""

    def __init__(self, address: str) -> None:
        try:
            self._container = av.open(address, timeout=_WAIT)
        except (av.FFmpegError, OSError) as error:
            raise DecodeError(f"the stream cannot be opened ({_of_stream(error)})") from error
        if not self._container.streams.video:
            self._container.close()
            raise DecodeError("the stream has no video")
        rate = self._container.streams.video[0].average_rate
        self.rate = Fraction(rate) if rate else Fraction(_USUAL_RATE)
        self.time_base = 1 / self.rate
        self._bad, self._bad_in_a_row, self._first_error = 0, 0, ""  # packets that cannot be decoded

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        convert = RgbConverter()
        try:
            frames = (frame for packet in self._container.demux(video=0) for frame in self._decoded(packet))
            for number, frame in enumerate(frames):
                yield number, convert(frame)
        except (av.FFmpegError, OSError) as error:
            raise DecodeError(f"the stream broke off ({_of_stream(error)})") from error

    def _decoded(self, packet: av.Packet) -> Sequence[av.VideoFrame]:
        try:
            frames = packet.decode()
            self._bad_in_a_row = 0 if frames else self._bad_in_a_row
            return frames
        except av.FFmpegError as error:
            self._bad, self._bad_in_a_row = self._bad + 1, self._bad_in_a_row + 1
            self._first_error = self._first_error or failure_reason(error)
            if self._bad_in_a_row == _MOST_BAD:
                raise DecodeError(f"{_MOST_BAD} packets in a row cannot be decoded ({self._first_error})") from error
            return []

    @property
    def missing(self) -> str | None:
        return f"{self._bad} packets cannot be decoded ({self._first_error})" if self._bad else None

    def close(self) -> None:
        self._container.close()


def _of_stream(error: av.FFmpegError | OSError) -> str:
    """FFmpeg calls its own time limit an exit."""
    return f"no data for {_WAIT:g} seconds" if isinstance(error, av.ExitError) else failure_reason(error)


class CameraFrames:
    """The frames of a camera of this machine."""

    missing: str | None = None

    def __init__(self, number: int) -> None:
        level = logging.setLogLevel(logging.LOG_LEVEL_SILENT)  # the error below says it
        try:
            self._capture = cv2.VideoCapture(number)
        finally:
            logging.setLogLevel(level)
        if not self._capture.isOpened():
            self._capture.release()
            raise DecodeError(f"camera {number} cannot be opened: it is not there, in use, or not allowed")
        self.rate = Fraction(round(self._capture.get(cv2.CAP_PROP_FPS)) or _USUAL_RATE)
        self.time_base = 1 / self.rate

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        number = 0
        while True:
            there, image = self._capture.read()
            if not there:
                raise DecodeError("the camera gives no more frames")
            yield number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            number += 1

    def close(self) -> None:
        self._capture.release()
