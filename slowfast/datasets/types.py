"""Records, samples and failures: what datasets pass on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

if TYPE_CHECKING:
    import torch

    Clips = torch.Tensor | dict[str, torch.Tensor]  # one clip or several

import math
import traceback
from collections.abc import Iterable

import av
import cv2

from slowfast.datasets.decode.reader import DecodeError
from slowfast.errors import system_reason
from slowfast.utils.logging import get_logger, log_table

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")

# Augmented samples of one medium: uint8 (NUM_SAMPLE, T, H, W, C), or the events of each: x, y, t, p and valid (L,).
Samples = np.ndarray | list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Record:
    """One line of an index: a medium on disk and its label. `index` is its place in the index file, from 0."""

    index: int
    path: Path  # where to read
    name: str  # as it stands in the index file; used in every report
    label: Any  # class index; a tuple of them or a float where MODEL.TASK has such labels
    frames: int | None = None  # images in the folder `path`, by the index; None: the medium is a file


@dataclass(frozen=True)
class Failure:
    """A sample, or a part of it, that could not be read.

    Attributes:
        index: Place in the index file, from 0.
        name: As in the index file.
        reason: Why, in one line.
        lost: True if nothing of it could be used; False if frames were missing from an otherwise usable clip.
        traceback: Of an unexpected error, for the log.
    """

    index: int
    name: str
    reason: str
    lost: bool = True
    traceback: str = field(default="", compare=False)


@dataclass(frozen=True)
class Crop:
    """A rectangle of a frame (pixels; may be fractional): its top left corner and size."""

    top: float
    left: float
    height: float
    width: float


@dataclass
class TrainSample:
    """NUM_SAMPLE augmented clips of one video."""

    record: Record
    clips: Samples | None  # None: nothing could be read, see failures
    failures: list[Failure] = field(default_factory=list)


class TestMedium(Protocol):
    """All views of one medium of a test."""

    record: Record
    failures: list[Failure]

    @property
    def count(self) -> int:
        """Its clips; 0 where nothing could be read."""

    def clips(self, device: torch.device) -> Iterator[Clips]:
        """They themselves, on the device."""

    def picture(self) -> np.ndarray:
        """Frames to look at of what was read: uint8 (T, H, W, 3), R G B."""

    def pin_memory(self) -> Self:
        """The same in page-locked memory."""


@dataclass
class TestVideo:
    """All views of one video without copying a frame twice: view v, crop c is
    `frames[frame_index[v], top:top + size, left:left + size]` with `top, left = corners[c]`.
    """

    __test__ = False  # not a pytest class

    record: Record
    frames: torch.Tensor | None  # uint8 (U, H, W, C); None: nothing could be read, see failures
    frame_index: torch.Tensor  # int64 (V, T)
    corners: list[tuple[int, int]]  # (top, left) of each crop
    size: int  # side of the square crops
    failures: list[Failure] = field(default_factory=list)

    @property
    def count(self) -> int:
        """V x C clips; 0 where nothing could be read."""
        return len(self.frame_index) * len(self.corners)

    def clips(self, device: torch.device) -> Iterator[torch.Tensor]:
        """Views outside, crops inside: uint8 (T, S, S, channels), cut out on the device."""
        if self.frames is None:
            return
        frames = self.frames.to(device, non_blocking=True)  # (U, H, W, channels)
        for rows in self.frame_index.to(device):
            clip = frames.index_select(0, rows)  # whole frames first: indexing and slicing at once is many times slower
            for top, left in self.corners:
                yield clip[:, top : top + self.size, left : left + self.size]

    def picture(self) -> np.ndarray:
        """The first view's centre crop: uint8 (T, S, S, 3). Raises ValueError where nothing was read."""
        if self.frames is None:
            raise ValueError(f"{self.record.name}: nothing was read of it")
        top, left = self.corners[len(self.corners) // 2]
        frames = self.frames[self.frame_index[0], top : top + self.size, left : left + self.size]
        return frames.numpy()

    def pin_memory(self) -> TestVideo:
        """The same video in page-locked memory."""
        return replace(self, frames=None if self.frames is None else self.frames.pin_memory())


@dataclass
class TestRecording:
    """Samples of one event recording: dicts of x, y, p (int64), t (float32) and valid (bool), each (L,)."""

    __test__ = False  # not a pytest class

    record: Record
    samples: list[dict[str, torch.Tensor]]  # empty: nothing could be read, see failures
    sensor: tuple[int, int]  # height, width
    failures: list[Failure] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Samples; 0 where nothing could be read."""
        return len(self.samples)

    def clips(self, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
        """The samples on the device."""
        for sample in self.samples:
            yield {key: values.to(device, non_blocking=True) for key, values in sample.items()}

    def picture(self) -> np.ndarray:
        """The first sample's events, accumulated over sixths of its time. Raises ValueError where nothing was read."""
        from slowfast.datasets.dvs.frames import accumulate

        if not self.samples:
            raise ValueError(f"{self.record.name}: nothing was read of it")
        valid = self.samples[0]["valid"]
        x, y, t, p = (self.samples[0][key][valid].numpy() for key in "xytp")
        return accumulate(x, y, t, p, self.sensor)

    def pin_memory(self) -> TestRecording:
        """The same in page-locked memory."""
        samples = [{key: values.pin_memory() for key, values in sample.items()} for sample in self.samples]
        return replace(self, samples=samples)


@dataclass
class TrainBatch:
    """Clips of one process's part of a training batch as they were read, on the host."""

    clips: Clips  # uint8 (N, T, H, W, C), or a dict of events (N, L); N = videos x NUM_SAMPLE
    labels: torch.Tensor  # see `collate.stack_labels`; (N,) class indices for classification
    names: list[str]  # of the batch's videos
    failures: list[Failure]

    def pin_memory(self) -> TrainBatch:
        """The same batch in page-locked memory."""
        clips: Any = self.clips
        pinned = {k: v.pin_memory() for k, v in clips.items()} if isinstance(clips, dict) else clips.pin_memory()
        return replace(self, clips=pinned, labels=self.labels.pin_memory())


# Files of a training set that may be unreadable whatever DATA.MAX_FAILED is, unless it is 0.
MIN_ALLOWED = 3
_MOST_CHARACTERS = 500  # of a reason
_FIRST = 3  # failures named in the message that ends a run

_logged_tracebacks: set[str] = set()


def failure_reason(error: BaseException) -> str:
    """Return why a file could not be read, in one line.

    Args:
        error: What its reader raised. The text of a DecodeError is the reason; of errors of the system, FFmpeg and
            OpenCV it is their own short text; of any other kind the name and the text of the error.
    """
    if isinstance(error, DecodeError):
        text = str(error)
    elif isinstance(error, (OSError, av.FFmpegError)) and str(error):
        text = system_reason(error)
    elif isinstance(error, cv2.error):
        text = f"OpenCV: {error.err or error}"
    else:
        text = ": ".join(filter(None, (type(error).__name__, str(error))))
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= _MOST_CHARACTERS else f"{line[:_MOST_CHARACTERS]}..."


def failure_of(index: int, name: str, error: BaseException) -> Failure:
    """Return the failure of a sample whose reading raised an error; of unexpected ones with the traceback."""
    expected = isinstance(error, (DecodeError, OSError, av.FFmpegError))
    trace = "" if expected else "".join(traceback.format_exception(error))
    return Failure(index, name, failure_reason(error), traceback=trace)


def allowed_failures(share: float, total: int) -> int:
    """Return how many of `total` training samples may be unreadable before the run ends.

    Args:
        share: DATA.MAX_FAILED. Unless it is 0 at least MIN_ALLOWED samples may fail, but never all.
        total: Number of samples.
    """
    allowed = math.floor(share * total)
    if share > 0:
        allowed = max(allowed, MIN_ALLOWED)
    return max(min(allowed, total - 1), 0)


class FailureLedger:
    """Failures of one pass over the `total` samples of a dataset."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._by_index: dict[int, Failure] = {}

    def add(self, failures: Iterable[Failure], log: bool = True) -> None:
        """Add failures; each sample is counted and logged once, an unreadable one replacing a damaged one."""
        for failure in failures:
            known = self._by_index.get(failure.index)
            if known is None or (failure.lost and not known.lost):
                self._by_index[failure.index] = failure
                if not log:
                    continue
                what = "cannot be read" if failure.lost else "is damaged"
                get_logger().warning(f"{failure.name} {what}: {failure.reason}")
                log_traceback(failure)

    @property
    def all(self) -> list[Failure]:
        """Every failure, in the order of the index file."""
        return [self._by_index[index] for index in sorted(self._by_index)]

    @property
    def lost(self) -> list[Failure]:
        """Failures of the samples of which nothing could be used."""
        return [failure for failure in self.all if failure.lost]

    def complaint(self, share: float) -> str | None:
        """Return a message if more training samples are unreadable than DATA.MAX_FAILED allows, else None."""
        lost, limit = self.lost, allowed_failures(share, self.total)
        if len(lost) <= limit:
            return None
        named = "; ".join(f"{failure.name}: {failure.reason}" for failure in lost[:_FIRST])
        more = f"; and {len(lost) - _FIRST} more" if len(lost) > _FIRST else ""
        return (
            f"Stopping: {len(lost)} of {self.total} training videos are unreadable (limit: {limit}, DATA.MAX_FAILED): "
            f"{named}{more}"
        )


def log_traceback(failure: Failure) -> None:
    """Log the traceback of an unexpected error, the first time that one of its kind is met."""
    kind = failure.traceback.strip().rpartition("\n")[2].partition(":")[0]
    if kind and kind not in _logged_tracebacks:
        _logged_tracebacks.add(kind)
        log_table(failure.traceback.rstrip())
