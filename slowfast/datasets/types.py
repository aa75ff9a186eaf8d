"""Records of an index, samples, batches and failures."""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import av
import cv2
import numpy as np

from slowfast.datasets.decode.reader import DecodeError
from slowfast.errors import system_reason
from slowfast.utils.logging import get_logger, log_table

if TYPE_CHECKING:
    import torch

    Clips = torch.Tensor | dict[str, torch.Tensor]  # one or several clips

TRAIN, VAL, TEST = SPLITS = ("train", "val", "test")

# Number of training samples that may always be unreadable, unless DATA.MAX_FAILED is 0.
MIN_ALLOWED = 3
_MOST_CHARACTERS = 500  # characters kept of a reason
_FIRST = 3  # failures listed in the message that ends a run

_logged_tracebacks: set[str] = set()

# Augmented copies of one sample: uint8 (NUM_SAMPLE, T, H, W, C), or the events of each: x, y, t, p and valid (L,).
Samples = np.ndarray | list[dict[str, np.ndarray]]


@dataclass(frozen=True)
class Record:
    """Entry of an index: a sample on disk and its label.

    Attributes:
        index: Position in the index file, from 0.
        path: File or folder to read, member of a shard or s3:// address, see :mod:`slowfast.datasets.sample_files`.
        name: Name in the index file, used in every report.
        label: Class index, -1 if unknown; a tuple of them or a float if MODEL.TASK has such labels.
        frames: Images in the folder `path`, according to the index; None if the sample is a file.
    """

    index: int
    path: Path
    name: str
    label: Any
    frames: int | None = None


@dataclass(frozen=True)
class Failure:
    """Sample, or part of one, that could not be read.

    Attributes:
        index: Position in the index file, from 0.
        name: Name in the index file.
        reason: Reason, in one line.
        lost: True if nothing could be used; False if frames were missing from a usable clip.
        traceback: Traceback of an unexpected error, for the log.
    """

    index: int
    name: str
    reason: str
    lost: bool = True
    traceback: str = field(default="", compare=False)


@dataclass
class TrainSample:
    """Augmented clips of one training sample.

    Attributes:
        record: The sample.
        clips: NUM_SAMPLE clips; None if nothing could be read.
        failures: Failures of the sample and of those it replaces.
    """

    record: Record
    clips: Samples | None
    failures: list[Failure] = field(default_factory=list)


class EvalSample(Protocol):
    """Evaluation views of one sample."""

    record: Record
    failures: list[Failure]

    @property
    def count(self) -> int:
        """Number of views; 0 if the sample could not be read."""

    def clips(self, device: torch.device) -> Iterator[Clips]:
        """Yield the views on a device."""

    def preview(self) -> np.ndarray:
        """Return frames to show, uint8 RGB (T, H, W, 3)."""

    def pin_memory(self) -> Self:
        """Return a copy in page-locked memory."""


@dataclass
class EvalVideo:
    """Evaluation views of one video, without copies of frames.

    View v, crop c is ``frames[frame_index[v], top:top + size, left:left + size]`` with ``top, left = corners[c]``.

    Attributes:
        record: The sample.
        frames: Distinct frames, uint8 (U, H, W, C); None if nothing could be read.
        frame_index: Frames of each view, int64 (V, T).
        corners: Top and left of each crop.
        size: Side of the square crops.
        failures: Failures of the sample.
    """

    record: Record
    frames: torch.Tensor | None
    frame_index: torch.Tensor
    corners: list[tuple[int, int]]
    size: int
    failures: list[Failure] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of views x crops; 0 if the video could not be read."""
        return len(self.frame_index) * len(self.corners)

    def clips(self, device: torch.device) -> Iterator[torch.Tensor]:
        """Yield the crops of each view, uint8 (T, S, S, C), cut out on the device."""
        if self.frames is None:
            return
        frames = self.frames.to(device, non_blocking=True)  # (U, H, W, channels)
        for rows in self.frame_index.to(device):
            clip = frames.index_select(0, rows)  # indexing and slicing in one step is many times slower
            for top, left in self.corners:
                yield clip[:, top : top + self.size, left : left + self.size]

    def preview(self) -> np.ndarray:
        """Return the center crop of the first view, uint8 (T, S, S, 3); ValueError if nothing was read."""
        if self.frames is None:
            raise ValueError(f"{self.record.name} could not be read")
        top, left = self.corners[len(self.corners) // 2]
        frames = self.frames[self.frame_index[0], top : top + self.size, left : left + self.size]
        return frames.numpy()

    def pin_memory(self) -> EvalVideo:
        """Return a copy in page-locked memory."""
        return replace(self, frames=None if self.frames is None else self.frames.pin_memory())


@dataclass
class EvalRecording:
    """Samples of one event recording.

    Attributes:
        record: The recording.
        samples: Dicts of x, y, p (int64), t (float32) and valid (bool), each (L,); empty if nothing could be read.
        sensor: Height and width in pixels.
        failures: Failures of the recording.
    """

    record: Record
    samples: list[dict[str, torch.Tensor]]
    sensor: tuple[int, int]
    failures: list[Failure] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of samples; 0 if the recording could not be read."""
        return len(self.samples)

    def clips(self, device: torch.device) -> Iterator[dict[str, torch.Tensor]]:
        """Yield the samples on a device."""
        for sample in self.samples:
            yield {key: values.to(device, non_blocking=True) for key, values in sample.items()}

    def preview(self) -> np.ndarray:
        """Return the first sample's events accumulated over sixths of its time; ValueError if nothing was read."""
        from slowfast.datasets.dvs.frames import accumulate

        if not self.samples:
            raise ValueError(f"{self.record.name} could not be read")
        valid = self.samples[0]["valid"]
        x, y, t, p = (self.samples[0][key][valid].numpy() for key in "xytp")
        return accumulate(x, y, t, p, self.sensor)

    def pin_memory(self) -> EvalRecording:
        """Return a copy in page-locked memory."""
        samples = [{key: values.pin_memory() for key, values in sample.items()} for sample in self.samples]
        return replace(self, samples=samples)


@dataclass
class TrainBatch:
    """Clips of this process's part of a training batch, in host memory.

    Attributes:
        clips: uint8 (N, T, H, W, C), or a dict of events (N, L); N = samples x NUM_SAMPLE.
        labels: int64 (N,) class indices for classification; see :func:`~slowfast.datasets.loader.stack_labels`.
        names: Names of the samples.
        failures: Failures of samples that were replaced or damaged.
    """

    clips: Clips
    labels: torch.Tensor
    names: list[str]
    failures: list[Failure]

    def pin_memory(self) -> TrainBatch:
        """Return a copy in page-locked memory."""
        clips: Any = self.clips
        pinned = {k: v.pin_memory() for k, v in clips.items()} if isinstance(clips, dict) else clips.pin_memory()
        return replace(self, clips=pinned, labels=self.labels.pin_memory())


# ------------------------------------------------------------------ failures
def failure_reason(error: BaseException) -> str:
    """Return the reason why a file could not be read, in one line.

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
    """Return the failure of a sample whose reader raised an error, with the traceback of unexpected ones."""
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
        """Add failures; each sample is counted and logged once, and unreadable overrides damaged."""
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
        """Failures of the samples that could not be used at all."""
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
    """Log the traceback of an unexpected error, once per kind of error."""
    kind = failure.traceback.strip().rpartition("\n")[2].partition(":")[0]
    if kind and kind not in _logged_tracebacks:
        _logged_tracebacks.add(kind)
        log_table(failure.traceback.rstrip())
