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
from slowfast.datasets.order import VIEW, Key, balanced_order, epoch_order, generator, repeated_order
from slowfast.datasets.sampling import TemporalSampling, frame_order
from slowfast.datasets.transforms import TrainTransform, ViewTransform
from slowfast.datasets.types import (
    Failure,
    Record,
    Samples,
    TestMedium,
    TestVideo,
    TrainSample,
    allowed_failures,
    failure_of,
)
from slowfast.errors import UserError
from slowfast.utils.worker import IDLE, working_on

_LONGEST = 1e8  # seconds; timers know no longer ones everywhere


@contextmanager
def time_limit(seconds: float, error: Exception) -> Iterator[None]:
    """Raise `error` in the block when it takes longer.

    There is no limit for 0 seconds, outside of the main thread and while an alarm of someone else is set. A call into
    C code that does not return is not interrupted.
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


Medium = TypeVar("Medium", bound=TestMedium)
Read = TypeVar("Read")


class Reading:
    """What the datasets share: records, each of which is read or fails with a reason.

    Attributes:
        unreadable: Reasons of records that are not opened any more, by their place, as they cost a worker process.
        timeout: Seconds that reading one may take; 0 sets no limit. A worker that hangs in C is ended from outside.
    """

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.unreadable: dict[int, str] = {}
        self.timeout = 0.0

    def __len__(self) -> int:
        return len(self.records)

    def attempt(self, place: int, read: Callable[[Record], Read]) -> Read | Failure:
        """Read the record at a place; any exception, but user errors, is that record's failure."""
        record = self.records[place]
        if place in self.unreadable:
            return Failure(record.index, record.name, self.unreadable[place])
        slow = DecodeError(timeout_reason(self.timeout))
        working_on(place)
        try:
            with time_limit(self.timeout, slow):
                return read(record)
        except UserError:
            raise
        except Exception as error:
            return failure_of(record.index, record.name, error)
        finally:
            working_on(IDLE)


class TrainMedia(Reading, Dataset[TrainSample]):
    """Training dataset of augmented samples; a key (epoch, place in the epoch's order) always gives the same ones.

    A sample that cannot be read is replaced by the next of the same epoch's order; each of its copies by another one.

    Args:
        records: Samples of the index.
        samples: Augmented copies of each.
        seed: Seed of the order and of all augmentation.
        max_failed: DATA.MAX_FAILED; more unreadable samples in a row are not replaced.
        balanced: Whether an epoch has equally many samples of each class. One that comes twice gives other clips.
        repeated: Copies of each sample in the order of an epoch, which is not longer for it (AUG.REPEATED).
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
        labels = [record.label for record in records]
        order = functools.partial(balanced_order, labels) if balanced else functools.partial(epoch_order, len(records))
        self._order = functools.lru_cache(maxsize=2)(lambda epoch: repeated_order(order(seed, epoch), repeated))

    def __getitem__(self, key: Key) -> TrainSample:
        epoch, start = key
        order = self._order(epoch)
        failures: dict[int, Failure] = {}
        for step in range(len(order)):
            repeat, place = divmod(int(order[(start + step * self.repeated) % len(order)]), len(self.records))
            if place in failures:
                continue
            draw = self.records[place].index + repeat * len(self.records)
            result = self.attempt(place, functools.partial(self._read, epoch=epoch, draw=draw))
            if isinstance(result, Failure):
                failures[place] = result
                if len(failures) > self.max_failures:
                    break
                continue
            clips, missing = result
            record = self.records[place]
            damaged = [] if missing is None else [Failure(record.index, record.name, missing, lost=False)]
            return TrainSample(record, clips, [*failures.values(), *damaged])
        return TrainSample(self.records[place], None, list(failures.values()))

    @abstractmethod
    def _read(self, record: Record, epoch: int, draw: int) -> tuple[Samples, str | None]:
        """Return the samples that (epoch, draw) gives, and what of the record was missing.

        Raises:
            DecodeError: If it cannot be read. Any other exception counts as its failure, too.
        """


class TestMedia(Reading, Dataset[Medium]):
    """Evaluation dataset: all views of each sample, read once; nothing is ever replaced."""

    __test__ = False  # not a pytest class

    def __init__(self, records: Sequence[Record], seed: int = 0) -> None:
        super().__init__(records)
        self.seed = seed

    def __getitem__(self, place: int) -> Medium:
        result = self.attempt(place, self._read)
        return self._failed(self.records[place], result) if isinstance(result, Failure) else result

    @abstractmethod
    def _read(self, record: Record) -> Medium:
        """Return all views of a record.

        Raises:
            DecodeError: If it cannot be read. Any other exception counts as its failure, too.
        """

    @abstractmethod
    def _failed(self, record: Record, failure: Failure) -> Medium:
        """Return what stands for a record that cannot be read."""


def timeout_reason(seconds: float) -> str:
    """Return why reading was given up."""
    return Deadline(seconds).message


OpenMedium = Callable[[Record], AbstractContextManager[VideoReader]]


class TrainClips(TrainMedia):
    """Augmented copies of a random clip of each video."""

    def __init__(
        self,
        records: Sequence[Record],
        open_medium: OpenMedium,
        temporal: TemporalSampling,
        transform: TrainTransform,
        samples: int = 1,
        seed: int = 0,
        max_failed: float = 0.01,
        balanced: bool = False,
        repeated: int = 1,
    ) -> None:
        super().__init__(records, samples, seed, max_failed, balanced, repeated)
        self.open_medium, self.temporal, self.transform = open_medium, temporal, transform

    def _read(self, record: Record, epoch: int, draw: int) -> tuple[np.ndarray, str | None]:
        with self.open_medium(record) as reader:
            rng = generator(VIEW, self.seed, epoch, draw)
            decoded = reader.read(self.temporal.train(reader.num_frames, reader.fps, rng))  # rows (T,)
        draws = (generator(VIEW, self.seed, epoch, draw, sample + 1) for sample in range(self.samples))
        clips = [self.transform(decoded.frames, decoded.rows, rng) for rng in draws]
        return np.stack(clips), decoded.missing  # (S, T, H, W, C)


class TestVideos(TestMedia[TestVideo]):
    """All views of each video, decoded once; nothing is random."""

    __test__ = False  # not a pytest class

    def __init__(
        self,
        records: Sequence[Record],
        open_medium: OpenMedium,
        temporal: TemporalSampling,
        transform: ViewTransform,
        views: int = 1,
        order: str = "normal",
        seed: int = 0,
    ) -> None:
        super().__init__(records, seed)
        self.open_medium, self.temporal, self.transform = open_medium, temporal, transform
        self.views, self.order = views, order

    def _failed(self, record: Record, failure: Failure) -> TestVideo:
        return TestVideo(record, None, torch.empty(0, 0, dtype=torch.long), [], 0, [failure])

    def _read(self, record: Record) -> TestVideo:
        with self.open_medium(record) as reader:
            rng = generator(VIEW, self.seed, record.index)
            views = self.temporal.views(reader.num_frames, reader.fps, self.views)
            decoded = reader.read(np.stack([frame_order(view, self.order, rng) for view in views]))  # rows (V, T)
        frames, corners = self.transform(decoded.frames)  # (U, H', W', C)
        failures = [] if decoded.missing is None else [Failure(record.index, record.name, decoded.missing, lost=False)]
        rows = torch.from_numpy(decoded.rows)
        return TestVideo(record, torch.from_numpy(frames), rows, corners, self.transform.crop_size, failures)
