"""Videos as training clips and as test views: index -> decode -> sample -> transform, for every frame dataset.

T frames, H height, W width, C channels, V temporal views, S clips a video, U distinct frames.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from slowfast.datasets.decode import DecodeError, VideoReader
from slowfast.datasets.order import VIEW, Key, balanced_order, epoch_order, generator
from slowfast.datasets.sampling import frame_order
from slowfast.datasets.temporal import TemporalSampling
from slowfast.datasets.transforms import TrainTransform, ViewTransform
from slowfast.datasets.types import Failure, Record, TestVideo, TrainSample

OpenMedium = Callable[[Record], AbstractContextManager[VideoReader]]

MAX_WORKERS = 1024
# Columns of the table that says what each worker is doing.
PLACE, PROCESS, SINCE = range(3)


class Activity:
    """A table shared with the workers: which record each is reading, and since when (monotonic seconds)."""

    def __init__(self) -> None:
        self.table = torch.full((MAX_WORKERS, 3), -1, dtype=torch.float64).share_memory_()

    def start(self, place: int) -> None:
        """This worker begins with the record at that place of the list."""
        self._write([place, os.getpid(), time.monotonic()])

    def finish(self) -> None:
        """This worker is idle."""
        self._write([-1, os.getpid(), time.monotonic()])

    def _write(self, row: list[float]) -> None:
        worker = get_worker_info()
        if worker is not None:
            self.table[worker.id] = torch.tensor(row, dtype=torch.float64)


class TrainClips(Dataset[TrainSample]):
    """Augmented copies of a random clip; a key (epoch, place in the epoch's order) always gives the same ones.

    `balanced`: an epoch has as many videos of each class, and a video that comes twice gives other clips.

    A video that cannot be read is noted, and the next of the same epoch's order takes its place, at most
    `max_failed` (a share) of all videos in a row.
    """

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
    ) -> None:
        self.records, self.open_medium = records, open_medium
        self.temporal, self.transform = temporal, transform
        self.samples, self.seed = samples, seed
        self.tries = min(math.floor(max_failed * len(records)) + 1, len(records))
        self.activity = Activity()
        labels = [record.label for record in records]
        order = functools.partial(balanced_order, labels) if balanced else functools.partial(epoch_order, len(records))
        self._order = functools.lru_cache(maxsize=2)(functools.partial(order, seed))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: Key) -> TrainSample:
        epoch, start = key
        order = self._order(epoch)
        failures: list[Failure] = []
        for step in range(self.tries):
            repeat, place = divmod(int(order[(start + step) % len(order)]), len(self.records))
            record = self.records[place]
            self.activity.start(place)
            try:
                clips, missing = self._read(record, epoch, record.index + repeat * len(self.records))
            except DecodeError as error:
                failures.append(Failure(record.index, record.name, str(error)))
                continue
            finally:
                self.activity.finish()
            if missing is not None:
                failures.append(Failure(record.index, record.name, missing, lost=False))
            return TrainSample(record, clips, failures)
        return TrainSample(record, None, failures)

    def _read(self, record: Record, epoch: int, draw: int) -> tuple[np.ndarray, str | None]:
        with self.open_medium(record) as reader:
            rng = generator(VIEW, self.seed, epoch, draw)
            decoded = reader.read(self.temporal.train(reader.num_frames, reader.fps, rng))  # rows (T,)
        draws = (generator(VIEW, self.seed, epoch, draw, sample + 1) for sample in range(self.samples))
        clips = [self.transform(decoded.frames, decoded.rows, rng) for rng in draws]
        return np.stack(clips), decoded.missing  # (S, T, H, W, C)


class TestVideos(Dataset[TestVideo]):
    """All views of each video, decoded once; nothing is random and nothing is ever replaced."""

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
        self.records, self.open_medium = records, open_medium
        self.temporal, self.transform = temporal, transform
        self.views, self.order, self.seed = views, order, seed
        self.activity = Activity()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: int) -> TestVideo:
        record = self.records[place]
        self.activity.start(place)
        try:
            return self._read(record)
        except DecodeError as error:
            failure = Failure(record.index, record.name, str(error))
            return TestVideo(record, None, torch.empty(0, 0, dtype=torch.long), [], 0, [failure])
        finally:
            self.activity.finish()

    def _read(self, record: Record) -> TestVideo:
        with self.open_medium(record) as reader:
            rng = generator(VIEW, self.seed, record.index)
            views = self.temporal.views(reader.num_frames, reader.fps, self.views)
            decoded = reader.read(np.stack([frame_order(view, self.order, rng) for view in views]))  # rows (V, T)
        frames, corners = self.transform(decoded.frames)  # (U, H', W', C)
        failures = [] if decoded.missing is None else [Failure(record.index, record.name, decoded.missing, lost=False)]
        rows = torch.from_numpy(decoded.rows)
        return TestVideo(record, torch.from_numpy(frames), rows, corners, self.transform.crop_size, failures)
