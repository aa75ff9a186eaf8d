"""Datasets of augmented training clips and of evaluation views."""

from __future__ import annotations

import functools
import signal
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import Dataset

from slowfast.datasets.decode import DecodeError, VideoReader
from slowfast.datasets.decode.reader import Deadline
from slowfast.datasets.records import labels_of
from slowfast.datasets.sampling import (
    VIEW,
    Key,
    TemporalSampling,
    balanced_order,
    epoch_order,
    frame_order,
    generator,
    repeated_order,
)
from slowfast.datasets.transforms import TrainTransform, ViewTransform
from slowfast.datasets.types import (
    EvalSample,
    EvalVideo,
    Failure,
    Record,
    Samples,
    TrainSample,
    allowed_failures,
    failure_of,
)
from slowfast.errors import UserError
from slowfast.utils.worker import IDLE, working_on

_LONGEST = 1e8  # seconds; some systems do not support longer timers


@contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
    """Raise an error in the block if it takes too long.

    Calls into C code are not interrupted. There is no limit outside the main thread and while
    another alarm is set.

    Args:
        seconds: Time limit; 0 for none.
        error: The error.
    """
    alarm_is_free = signal.getitimer(signal.ITIMER_REAL)[0] == 0
    if seconds <= 0 or threading.current_thread() is not threading.main_thread() or not alarm_is_free:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, _LONGEST))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


Sample = TypeVar("Sample", bound=EvalSample)
Read = TypeVar("Read")


class RecordDataset:
    """Base class of datasets: each record is either read or fails with a reason.

    Attributes:
        records: Samples of the index.
        unreadable: Reasons why records are no longer opened, by position: they ended a worker process.
        timeout: Seconds that reading a record may take; 0 for no limit. A worker that hangs in C code is killed.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.unreadable: dict[int, str] = {}
        self.timeout = 0.0

    def __len__(self) -> int:
        return len(self.records)

    def attempt(self, position: int, read: Callable[[Record], Read]) -> Read | Failure:
        """Read the record at a position; any exception except a user error becomes the failure of that record."""
        record = self.records[position]
        if position in self.unreadable:
            return Failure(record.index, record.name, self.unreadable[position])
        slow = DecodeError(timeout_reason(self.timeout))
        working_on(position)
        try:
            with time_limit(self.timeout, slow):
                return read(record)
        except UserError:
            raise
        except Exception as error:
            return failure_of(record.index, record.name, error)
        finally:
            working_on(IDLE)


class TrainDataset(RecordDataset, Dataset[TrainSample]):
    """Training dataset of augmented samples, which depend only on the key (epoch, position in the epoch's order).

    An unreadable sample is replaced by the next ones in the order of the epoch, each of its copies by a different one.

    Args:
        records: Samples of the index.
        samples: Augmented copies of each sample (AUG.NUM_SAMPLE).
        seed: Seed of the order and of all augmentation.
        max_failed: Fraction of samples that may be unreadable (DATA.MAX_FAILED); more in a row are not replaced.
        balanced: Draw equally many samples of each class in an epoch; a sample drawn twice yields different clips.
        repeated: Copies of each sample in the order of an epoch (AUG.REPEATED); the epoch has the same length.
    """

    def __init__(
        self,
        records: Sequence[Record],
        samples: int = 1,
        seed: int = 0,
        max_failed: float = 0.01,
        balanced: bool = False,
        repeated: int = 1,
    ) -> None:
        super().__init__(records)
        self.samples, self.seed, self.repeated = samples, seed, repeated
        self.max_failures = allowed_failures(max_failed, len(records))
        order = (
            functools.partial(balanced_order, np.asarray(labels_of(records)))
            if balanced
            else functools.partial(epoch_order, len(records))
        )
        self._order = functools.lru_cache(maxsize=2)(lambda epoch: repeated_order(order(seed, epoch), repeated))

    def __getitem__(self, key: Key) -> TrainSample:
        epoch, start = key
        order = self._order(epoch)
        failures: dict[int, Failure] = {}
        for step in range(len(order)):
            repeat, position = divmod(int(order[(start + step * self.repeated) % len(order)]), len(self.records))
            if position in failures:
                continue
            record = self.records[position]
            draw = record.index + repeat * len(self.records)
            result = self.attempt(position, functools.partial(self._read, epoch=epoch, draw=draw))
            if isinstance(result, Failure):
                failures[position] = result
                if len(failures) > self.max_failures:
                    break
                continue
            clips, missing = result
            damaged = [] if missing is None else [Failure(record.index, record.name, missing, lost=False)]
            return TrainSample(record, clips, [*failures.values(), *damaged])
        return TrainSample(self.records[position], None, list(failures.values()))

    @abstractmethod
    def _read(self, record: Record, epoch: int, draw: int) -> tuple[Samples, str | None]:
        """Read the samples of a draw.

        Returns:
            The samples, and a description of missing frames or None.

        Raises:
            DecodeError: If the record cannot be read; any other exception also counts as a failure of the record.
        """


class EvalDataset(RecordDataset, Dataset[Sample]):
    """Evaluation dataset: all views of each sample, read once; an unreadable sample is never replaced."""

    def __init__(self, records: Sequence[Record], seed: int = 0) -> None:
        super().__init__(records)
        self.seed = seed

    def __getitem__(self, position: int) -> Sample:
        result = self.attempt(position, self._read)
        return self._failed(self.records[position], result) if isinstance(result, Failure) else result

    @abstractmethod
    def _read(self, record: Record) -> Sample:
        """Read all views of a record.

        Raises:
            DecodeError: If the record cannot be read; any other exception also counts as a failure of the record.
        """

    @abstractmethod
    def _failed(self, record: Record, failure: Failure) -> Sample:
        """Return the evaluation sample of a record that cannot be read."""


def timeout_reason(seconds: float) -> str:
    """Return the reason for a failure after a time limit."""
    return Deadline(seconds).message


OpenSample = Callable[[Record], AbstractContextManager[VideoReader]]


class VideoTrainDataset(TrainDataset):
    """Training dataset of augmented copies of a random clip of each video."""

    def __init__(
        self,
        records: Sequence[Record],
        open_sample: OpenSample,
        temporal: TemporalSampling,
        transform: TrainTransform,
        samples: int = 1,
        seed: int = 0,
        max_failed: float = 0.01,
        balanced: bool = False,
        repeated: int = 1,
    ) -> None:
        super().__init__(records, samples, seed, max_failed, balanced, repeated)
        self.open_sample, self.temporal, self.transform = open_sample, temporal, transform

    def _read(self, record: Record, epoch: int, draw: int) -> tuple[np.ndarray, str | None]:
        with self.open_sample(record) as reader:
            rng = generator(VIEW, self.seed, epoch, draw)
            decoded = reader.read(self.temporal.train(reader.num_frames, reader.fps, rng))  # rows (T,)
        draws = (generator(VIEW, self.seed, epoch, draw, sample + 1) for sample in range(self.samples))
        clips = [self.transform(decoded.frames, decoded.rows, rng) for rng in draws]
        return np.stack(clips), decoded.missing  # (S, T, H, W, C)


class VideoEvalDataset(EvalDataset[EvalVideo]):
    """Deterministic evaluation dataset of all views of each video, which is decoded once."""

    def __init__(
        self,
        records: Sequence[Record],
        open_sample: OpenSample,
        temporal: TemporalSampling,
        transform: ViewTransform,
        views: int = 1,
        order: str = "normal",
        seed: int = 0,
    ) -> None:
        super().__init__(records, seed)
        self.open_sample, self.temporal, self.transform = open_sample, temporal, transform
        self.views, self.order = views, order

    def _failed(self, record: Record, failure: Failure) -> EvalVideo:
        return EvalVideo(record, None, torch.empty(0, 0, dtype=torch.long), [], 0, [failure])

    def _read(self, record: Record) -> EvalVideo:
        with self.open_sample(record) as reader:
            rng = generator(VIEW, self.seed, record.index)
            views = self.temporal.views(reader.num_frames, reader.fps, self.views)
            decoded = reader.read(np.stack([frame_order(view, self.order, rng) for view in views]))  # rows (V, T)
        frames, corners = self.transform(decoded.frames)  # (U, H', W', C)
        failures = [] if decoded.missing is None else [Failure(record.index, record.name, decoded.missing, lost=False)]
        rows = torch.from_numpy(decoded.rows)
        return EvalVideo(record, torch.from_numpy(frames), rows, corners, self.transform.crop_size, failures)
