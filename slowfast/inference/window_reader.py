"""Reader of the windows of a video; each frame is decoded once, in order, and shared by overlapping windows.

Notation: n frames of the file, U distinct frames of a window; V views of T frames; H x W pixels after scaling.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.base import FrameDataset
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.decode.image import FrameFolderReader
from slowfast.datasets.decode.pyav import PyAVReader
from slowfast.datasets.decode.reader import DecodeError, check_read_size
from slowfast.datasets.decode.rgb import RgbConverter
from slowfast.datasets.sampling import NORMAL, VIEW, TemporalSampling, frame_order, generator
from slowfast.datasets.transforms import ViewTransform
from slowfast.datasets.types import EvalVideo, Record
from slowfast.errors import UserError
from slowfast.inference.windows import WindowPlan
from slowfast.models.protocol import CLIPS


class SequentialVideo(Protocol):
    """Open video whose frames are read in order."""

    fps: float

    def times(self) -> np.ndarray:
        """Return the display time of each frame in seconds after the first, (n,)."""

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the number and RGB image of each frame of the mask `wanted`, bool (n,), that can be decoded."""

    @property
    def missing(self) -> str | None:
        """Description of what could not be read; valid after the last frame."""

    def close(self) -> None: ...


class SequentialFile:
    """Video file as a `SequentialVideo`.

    Args:
        path: The file.
        threads: Number of decoder threads.
        short_side: Short side (pixels) that larger frames are scaled down to.
    """

    def __init__(self, path: Path, threads: int, short_side: int) -> None:
        self._reader = PyAVReader(path, threads)
        self._short_side, self._unconverted = short_side, ""
        self.fps = self._reader.fps

    def times(self) -> np.ndarray:
        return self._reader.times()

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        convert = RgbConverter(short_side=self._short_side)
        for number, frame in self._reader.every_frame():
            if number >= len(wanted):
                return
            if not wanted[number]:
                continue
            try:
                image = convert(frame)
            except DecodeError as error:
                self._unconverted = str(error)
                continue
            yield number, image

    @property
    def missing(self) -> str | None:
        return self._reader.error or self._unconverted or self._reader.truncation

    def close(self) -> None:
        self._reader.close()


class SequentialFolder:
    """Folder of frames as a `SequentialVideo`.

    Args:
        path: The folder.
        template: File name template of the frames.
        frames: Number of frames.
        fps: Frame rate, which images do not contain.
    """

    missing: str | None = None

    def __init__(self, path: Path, template: str, frames: int, fps: float) -> None:
        self._reader = FrameFolderReader(path, template, frames, fps)
        self.fps = fps

    def times(self) -> np.ndarray:
        return np.arange(self._reader.num_frames) / self.fps

    def images(self, wanted: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        for number in np.flatnonzero(wanted).tolist():
            try:
                yield number, self._reader.read([number]).frames[0]
            except DecodeError as error:
                self.missing = self.missing or str(error)

    def close(self) -> None:
        self._reader.close()


def open_sequential(cfg: ConfigNode, short_side: int, record: Record) -> SequentialVideo:
    """Open a video, or a folder of frames that plays at DATA.TARGET_FPS, to be read in order.

    Args:
        cfg: Config of the run.
        short_side: Short side (pixels) that larger frames of a video are scaled down to.
        record: The video.

    Raises:
        DecodeError: If it cannot be read.
    """
    if record.frames is not None:
        return SequentialFolder(record.path, cfg.DATA.IMAGE_TEMPLATE, record.frames, cfg.DATA.TARGET_FPS)
    return SequentialFile(record.path, cfg.DATA.DECODING_THREADS, short_side)


class ClipSampling:
    """Sampling of the clips of a window, as of a video in testing.

    Args:
        temporal: Sampling of the frames.
        transform: Scaling of frames and positions of the crops.
        views: Number of temporal views, V.
        order: Order of the frames of a clip.
        seed: Seed of a random order.
    """

    def __init__(
        self, temporal: TemporalSampling, transform: ViewTransform, views: int, order: str = NORMAL, seed: int = 0
    ) -> None:
        self.temporal, self.transform, self.views, self.order, self.seed = temporal, transform, views, order, seed

    @classmethod
    def from_config(cls, cfg: ConfigNode) -> ClipSampling:
        """Build the sampling of a test.

        Raises:
            UserError: If the network does not take clips of videos.
        """
        return cls.of_dataset(clip_dataset(cfg))

    @classmethod
    def of_dataset(cls, dataset: FrameDataset) -> ClipSampling:
        """Build the sampling of a test of a dataset."""
        views = dataset.build_eval([], all_views=True)
        return cls(views.temporal, views.transform, views.views, views.order, views.seed)

    def rows(self, length: int, fps: float) -> np.ndarray:
        """Return the frames of all views of a window, counted from its start, int64 (V, T).

        Views that are all equal, as those of a window of one clip, become one.

        Args:
            length: Frames of the window.
            fps: Frame rate in frames/s.
        """
        rng = generator(VIEW, self.seed, 0)
        views = self.temporal.views(length, fps, self.views)
        if self.order == NORMAL and (views == views[0]).all():
            return views[:1]
        return np.stack([frame_order(view, self.order, rng) for view in views])

    def sample(self, record: Record, frames: np.ndarray, rows: np.ndarray) -> EvalVideo:
        """Return the views of a window.

        Args:
            record: The video.
            frames: Distinct frames, scaled, uint8 (U, H, W, 3).
            rows: Row of each frame of the views, int64 (V, T).
        """
        scaled, corners = self.transform(frames)  # already has the right size, so nothing is copied
        crop = self.transform.crop_size
        return EvalVideo(record, torch.from_numpy(scaled), torch.from_numpy(rows), corners, crop)


def clip_dataset(cfg: ConfigNode) -> FrameDataset:
    """Return the dataset of clips of a config. Raises UserError if it is another kind."""
    dataset = find_dataset(cfg, TEST)
    if dataset.reads_recordings or dataset.input_kind != CLIPS or not isinstance(dataset, FrameDataset):
        reads = "event recordings" if dataset.reads_recordings else "images"
        framewise = ". For an image network set MODEL.FRAMEWISE logits TEST.DATASET kinetics DATA.NUM_FRAMES 8"
        raise UserError(
            "Sliding windows, cameras and streams need a network of video clips, but TEST.DATASET "
            f"{cfg.TEST.DATASET} reads {reads}{'' if dataset.reads_recordings else framewise}"
        )
    return dataset


@dataclass(frozen=True)
class Window:
    """One window of a video.

    Attributes:
        sample: Views of the window; it has none if no frame can be decoded.
        start: Start in seconds after the first frame.
        end: End in seconds.
    """

    sample: EvalVideo
    start: float
    end: float


class HeldFrames:
    """Scaled frames of a video by number, in ascending order.

    Args:
        sampling: Sampling of the clips, which scales the frames.
    """

    def __init__(self, sampling: ClipSampling) -> None:
        self._sampling = sampling
        self._frames: dict[int, np.ndarray] = {}
        self._shape: tuple[int, ...] = ()
        self.last = -1

    def add(self, number: int, image: np.ndarray) -> None:
        """Scale and keep a frame; a frame whose size differs from the first counts as missing."""
        self.last = number
        scaled = self._sampling.transform(image[None])[0][0]
        self._shape = self._shape or scaled.shape
        if scaled.shape == self._shape:
            self._frames[number] = scaled

    def drop_before(self, number: int) -> None:
        """Discard the frames before a number."""
        while self._frames and (oldest := next(iter(self._frames))) < number:
            del self._frames[oldest]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame; 0 before the first."""
        return (self._shape[0], self._shape[1]) if self._shape else (0, 0)

    def sample(self, record: Record, shown: np.ndarray) -> EvalVideo:
        """Return views; missing frames are replaced by the nearest frame of the window.

        Args:
            record: The video.
            shown: Numbers of the frames, int64 (V, T).
        """
        wanted, rows = np.unique(shown, return_inverse=True)
        have = np.array([number for number in wanted.tolist() if number in self._frames], dtype=np.int64)
        if not len(have):
            return EvalVideo(record, None, torch.empty(0, 0, dtype=torch.long), [], 0)
        nearest = np.abs(wanted[:, None] - have[None, :]).argmin(axis=1)
        frames = np.stack([self._frames[number] for number in have.tolist()])
        return self._sampling.sample(record, frames, nearest[rows].reshape(shown.shape))


def read_windows(record: Record, video: SequentialVideo, plan: WindowPlan, sampling: ClipSampling) -> Iterator[Window]:
    """Yield the windows of a video, in order, decoding each frame at most once.

    Args:
        record: The video.
        video: The open video, before anything was read.
        plan: Its windows.
        sampling: Sampling of their clips.

    Raises:
        DecodeError: If the frames that overlapping windows share would take too much memory.
    """
    rows = sampling.rows(plan.length, plan.fps)  # (V, T)
    images, held = video.images(plan.needed(rows)), HeldFrames(sampling)
    for number in range(len(plan)):
        shown = plan.frames(number, rows)
        held.drop_before(int(shown.min()))
        last = int(shown.max())
        while held.last < last and (item := next(images, None)) is not None:
            first = held.last < 0
            held.add(*item)
            if first:
                _check_memory(plan.most_held(rows), *held.size)
        yield Window(held.sample(record, shown), *plan.seconds(number))


def _check_memory(frames: int, height: int, width: int) -> None:
    try:
        check_read_size(frames, height, width)
    except DecodeError as error:
        raise DecodeError(f"{error}. Use a shorter --window or a longer --step") from None
