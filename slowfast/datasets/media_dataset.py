"""Base classes of all datasets: the order of an epoch, and samples that cannot be read."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

from torch.utils.data import Dataset

from slowfast.datasets.decode import DecodeError
from slowfast.datasets.decode.limits import Deadline
from slowfast.datasets.failures import allowed_failures, failure_of
from slowfast.datasets.order import Key, balanced_order, epoch_order, repeated_order
from slowfast.datasets.types import Failure, Record, Samples, TestMedium, TrainSample
from slowfast.errors import UserError
from slowfast.runtime.time_limit import time_limit
from slowfast.runtime.worker import IDLE, working_on

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
