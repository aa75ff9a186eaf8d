"""What all datasets share: the order of an epoch, media that fail, and which medium a worker is on."""

from __future__ import annotations

import functools
import math
import os
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch.utils.data import Dataset, get_worker_info

from slowfast.config.value_rules import MAX_WORKERS
from slowfast.datasets.decode import DecodeError
from slowfast.datasets.order import Key, balanced_order, epoch_order
from slowfast.datasets.types import Failure, Record, Samples, TestMedium, TrainSample

Medium = TypeVar("Medium", bound=TestMedium)

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


class TrainMedia(Dataset[TrainSample]):
    """Augmented samples of each medium; a key (epoch, place in the epoch's order) always gives the same ones.

    `balanced`: an epoch has as many media of each class, and a medium that comes twice gives other samples.

    A medium that cannot be read is noted, and the next of the same epoch's order takes its place, at most
    `max_failed` (a share) of all media in a row.
    """

    def __init__(
        self,
        records: Sequence[Record],
        samples: int = 1,
        seed: int = 0,
        max_failed: float = 0.01,
        balanced: bool = False,
    ) -> None:
        self.records, self.samples, self.seed = records, samples, seed
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

    @abstractmethod
    def _read(self, record: Record, epoch: int, draw: int) -> tuple[Samples, str | None]:
        """The samples that (epoch, draw) gives, and what of the medium was missing. Raises DecodeError."""


class TestMedia(Dataset[Medium]):
    """All views of each medium, read once; nothing is ever replaced."""

    __test__ = False  # not a pytest class

    def __init__(self, records: Sequence[Record], seed: int = 0) -> None:
        self.records, self.seed = records, seed
        self.activity = Activity()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, place: int) -> Medium:
        record = self.records[place]
        self.activity.start(place)
        try:
            return self._read(record)
        except DecodeError as error:
            return self._failed(record, Failure(record.index, record.name, str(error)))
        finally:
            self.activity.finish()

    @abstractmethod
    def _read(self, record: Record) -> Medium:
        """Its views. Raises DecodeError."""

    @abstractmethod
    def _failed(self, record: Record, failure: Failure) -> Medium:
        """What stands for a medium that cannot be read."""
