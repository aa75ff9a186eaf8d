"""Reader of the windows of a video; each frame is decoded once, in order, and shared by overlapping windows.

Notation: n frames of the file, U distinct frames of a window; V views of T frames; H x W pixels after scaling.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch

from slowfast.config.node import ConfigNode
from slowfast.datasets.base import FrameDataset
from slowfast.datasets.build import TEST, find_dataset
from slowfast.datasets.clip_dataset import timeout_reason
from slowfast.datasets.decode.reader import DecodeError, check_read_size
from slowfast.datasets.sampling import NORMAL, VIEW, TemporalSampling, frame_order, generator
from slowfast.datasets.transforms import ViewTransform
from slowfast.datasets.types import EvalVideo, Record
from slowfast.errors import UserError
from slowfast.inference.sequential import SequentialVideo
from slowfast.inference.windows import WindowPlan
from slowfast.models.protocol import CLIPS

Item = TypeVar("Item")
_POLL = 0.1  # seconds between checks for a stop
_AHEAD = 4  # maximum number of windows waiting for the network


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


@dataclass(frozen=True)
class _Raised:
    """Error raised in the thread."""

    error: BaseException


class ReadAhead(Generic[Item]):
    """Iterator over items that a background thread reads in advance.

    Args:
        items: Items; the iterator runs in the thread.
        stopped: Returns True to end early.
        timeout: Seconds that an item may take; 0 for no limit.
    """

    def __init__(self, items: Iterator[Item], stopped: Callable[[], bool], timeout: float) -> None:
        self._items, self._stopped, self._timeout = items, stopped, timeout
        self._queue: queue.Queue[Item | _Raised | None] = queue.Queue(_AHEAD)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True, name="reading windows")
        self._thread.start()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items; raise the errors of the thread, and DecodeError after the timeout."""
        try:
            while (item := self._get()) is not None:
                if isinstance(item, _Raised):
                    raise item.error
                yield item
        finally:
            self._abandoned.set()

    def _get(self) -> Item | _Raised | None:
        since = time.monotonic()
        while not self._stopped():
            try:
                return self._queue.get(timeout=_POLL)
            except queue.Empty:
                if self._timeout and time.monotonic() - since > self._timeout:
                    raise DecodeError(timeout_reason(self._timeout)) from None
        return None

    def _work(self) -> None:
        torch.set_num_threads(1)  # limits this thread; the network uses the other cores
        try:
            for item in self._items:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:
            self._put(_Raised(error))

    def _put(self, item: Item | _Raised | None) -> bool:
        """Pass on an item; return False if it is no longer needed."""
        while not self._abandoned.is_set():
            try:
                self._queue.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False
