"""Data loaders, and the collation of samples into batches.

The loaders survive worker processes that die or hang, and report the file that a worker was reading.
"""

from __future__ import annotations

import functools
import multiprocessing
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import default_collate

from slowfast.datasets.clip_dataset import EvalDataset, RecordDataset, TrainDataset, timeout_reason
from slowfast.datasets.sampling import EpochBatches
from slowfast.datasets.types import EvalSample, Failure, Samples, TrainBatch, TrainSample
from slowfast.errors import DataError
from slowfast.utils.logging import get_logger
from slowfast.utils.worker_pool import LostTask, WorkerPool

if TYPE_CHECKING:
    from slowfast.datasets.types import Clips


PADDING = -1  # fill value of x, y, t and p, as published
NO_LABEL = -1  # padding of lists of labels
Task = TypeVar("Task")
Item = TypeVar("Item")

# Workers lost in a row, without a batch in between, that end a run: each file of a disk that does not respond would
# cost the time limit.
_MOST_LOST = 32
_GRACE = 1.0  # seconds after the limit, because readers usually enforce it themselves


def pad_events(samples: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Pad event samples to the longest and stack them: dicts of x, y, t, p and valid (L,) -> dict of (N, L).

    Padding has the value PADDING, and False in valid.
    """
    longest = max(len(sample["valid"]) for sample in samples)
    return {
        key: torch.stack([_pad(sample[key], longest, value=0 if key == "valid" else PADDING) for sample in samples])
        for key in samples[0]
    }


def _pad(values: torch.Tensor, length: int, value: int) -> torch.Tensor:
    return F.pad(values, (0, length - len(values)), value=value)


def to_tensors(events: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Convert the columns of an event sample to tensors."""
    return {key: torch.from_numpy(values) for key, values in events.items()}


class UnreadableBatch(DataError):
    """Error for a training batch that cannot be filled because too many consecutive samples are unreadable.

    Args:
        message: The message for the user.
        failures: All failures of the batch.
    """

    def __init__(self, message: str, failures: list[Failure]) -> None:
        super().__init__(message, failures)  # pickle calls the class with these arguments
        self.failures = failures

    def __str__(self) -> str:
        return str(self.args[0])


def collate_clips(samples: list[TrainSample]) -> TrainBatch:
    """Collate B samples of S clips each into a batch of N = B S clips; the clips of a sample are adjacent.

    Raises:
        UnreadableBatch: If a sample could not be replaced by a readable one.
    """
    failures = [failure for sample in samples for failure in sample.failures]
    clips = [sample.clips for sample in samples if sample.clips is not None]
    if len(clips) < len(samples):
        last = failures[-1]
        raise UnreadableBatch(
            f"Stopping: too many training videos in a row are unreadable (limit: DATA.MAX_FAILED), the last: "
            f"{last.name}: {last.reason}",
            failures,
        )
    repeats = len(clips[0])
    labels = stack_labels([sample.record.label for sample in samples]).repeat_interleave(repeats, 0)
    return TrainBatch(_batch(clips), labels, [sample.record.name for sample in samples], failures)


def stack_labels(labels: Sequence[Any]) -> torch.Tensor:
    """Stack the labels of N samples.

    Args:
        labels: Class indices, tuples of class indices, or floats.

    Returns:
        int64 (N,) for class indices; int64 (N, L) for tuples of length up to L, padded with `NO_LABEL`;
        float32 (N,) for floats.
    """
    if not any(isinstance(label, tuple) for label in labels):
        return torch.tensor(labels)
    longest = max(len(label) for label in labels)
    return torch.tensor([[*label, *[NO_LABEL] * (longest - len(label))] for label in labels])


def _batch(clips: Sequence[Samples]) -> Clips:
    if isinstance(clips[0], list):
        return pad_events([to_tensors(events) for of_one in clips for events in of_one])
    frames = [torch.from_numpy(array) for array in clips if isinstance(array, np.ndarray)]
    return default_collate(frames).flatten(0, 1)  # (B, S, T, H, W, C) -> (N, T, H, W, C)


def stack_clips(clips: Sequence[Any]) -> Clips:
    """Stack single clips into a batch: (N, T, H, W, C), or events (N, L), padded to the longest."""
    return pad_events(clips) if isinstance(clips[0], dict) else torch.stack(list(clips))


def split_clips(clips: Clips, size: int) -> list[Clips]:
    """Split a batch into parts of `size` clips."""
    if not isinstance(clips, dict):
        return list(clips.split(size))
    parts = {key: values.split(size) for key, values in clips.items()}
    return [{key: parts[key][i] for key in parts} for i in range(len(parts["valid"]))]


class SampleLoader(Generic[Task, Item]):
    """Base class of loaders, which read the items of a dataset in order and in advance in worker processes.

    A worker that dies or exceeds the time limit is replaced, and the file it was reading counts as unreadable. The
    items are the same for any number of workers. Use the loader as a context manager to end its workers.

    Args:
        dataset: Dataset to read.
        read: Function of the dataset and a task that returns an item; it runs in the workers.
        workers: Number of worker processes; 0 reads in this process.
        timeout: Seconds that one file may take; 0 for no limit.
        prefetch: Items that each worker reads ahead of time.
        pin: Copy items to page-locked memory.
    """

    def __init__(
        self,
        dataset: RecordDataset,
        read: Callable[[Any, Task], Item],
        workers: int,
        timeout: float,
        prefetch: int,
        pin: bool,
    ) -> None:
        self.dataset, self.workers = dataset, workers
        dataset.timeout = timeout
        self._ahead, self._pin = max(prefetch, 1), pin
        self._read = read
        self._submitted = 0  # number of tasks submitted to the pool
        self._lost_in_a_row = 0
        self._killed: set[int] = set()  # positions of files whose reader was killed once
        self._pool = WorkerPool[tuple[Task, dict[int, str]], Item](
            functools.partial(_work, dataset, read),
            workers,
            timeout=timeout + _GRACE if timeout else 0,
            timeout_reason=lambda _: timeout_reason(timeout),
            # With fork, a worker starts in milliseconds, without importing everything again.
            start_method="fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn",
            ahead=self._ahead,
        )

    def tasks(self) -> Iterable[Task]:
        """Return the tasks to read, in order."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Item]:
        items = self._here() if self.workers == 0 else self._in_workers()
        for item in items:
            yield item.pin_memory() if self._pin else item  # type: ignore[attr-defined]

    def close(self) -> None:
        """End the worker processes; the next iteration starts them again."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _here(self) -> Iterator[Item]:
        for task in self.tasks():
            yield self._read(self.dataset, task)

    def _in_workers(self) -> Iterator[Item]:
        self._pool.cancel_all()  # tasks of an iteration that was abandoned
        left = iter(self.tasks())
        given: dict[int, Task] = {}  # tasks whose items have not been yielded, by number, in order
        ready: dict[int, Item] = {}
        while True:
            while len(given) < self.workers * self._ahead:
                try:
                    task = next(left)
                except StopIteration:
                    break
                given[self._submitted] = task
                self._submit(self._submitted, task)
                self._submitted += 1
            if not given:
                return
            first = next(iter(given))
            while first not in ready:
                event = self._pool.wait()
                if isinstance(event, LostTask):
                    self._replace(event)
                    self._submit(event.number, given[event.number], first=True)
                else:
                    self._lost_in_a_row = 0
                    ready[event.number] = event.result
            del given[first]
            yield ready.pop(first)

    def _replace(self, lost: LostTask) -> None:
        """Mark the file that a lost worker was reading as unreadable, or read it once more if the worker was killed."""
        name = self.dataset.records[lost.item].name
        self._lost_in_a_row += 1
        if self._lost_in_a_row > _MOST_LOST:
            raise DataError(
                f"Stopping: {self._lost_in_a_row} worker processes in a row were lost, the last on {name}: {lost}"
            )
        if lost.killed and lost.item not in self._killed:  # another process may have filled the memory
            self._killed.add(lost.item)
            get_logger().warning(f"{name}: {lost}; retrying once")
            return
        self.dataset.unreadable[lost.item] = lost.reason

    def _submit(self, number: int, task: Task, first: bool = False) -> None:
        self._pool.submit(number, (task, dict(self.dataset.unreadable)), first=first)


def _work(dataset: Any, read: Callable[[Any, Task], Item], task_and_unreadable: tuple[Task, dict[int, str]]) -> Item:
    """Read the item of a task; runs in a worker."""
    start_worker()
    task, unreadable = task_and_unreadable
    dataset.unreadable.update(unreadable)
    return read(dataset, task)


def start_worker(worker: int = 0) -> None:
    """Use a single thread in this process."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class TrainLoader(SampleLoader[tuple[int, int], TrainBatch]):
    """Loader of this process's part of each training batch; `batches.start_at` sets the epoch and the first step."""

    def __init__(
        self, dataset: TrainDataset, batches: EpochBatches, workers: int, timeout: float, prefetch: int, pin: bool
    ) -> None:
        self.batches = batches
        super().__init__(dataset, functools.partial(_read_batch, batches), workers, timeout, prefetch, pin)

    def __len__(self) -> int:
        return len(self.batches)

    def tasks(self) -> Iterable[tuple[int, int]]:
        """Return epoch and step of each batch."""
        return [(self.batches.epoch, step) for step in range(self.batches.first, self.batches.steps)]


class EvalLoader(SampleLoader[int, EvalSample]):
    """Loader of this process's evaluation samples, one by one: every `size`-th sample, starting at its rank."""

    def __init__(
        self, dataset: EvalDataset[Any], rank: int, size: int, workers: int, timeout: float, prefetch: int, pin: bool
    ) -> None:
        self._positions = range(rank, len(dataset), size)
        super().__init__(dataset, operator.getitem, workers, timeout, prefetch, pin)

    def __len__(self) -> int:
        return len(self._positions)

    def tasks(self) -> Iterable[int]:
        """Return the positions of the samples."""
        return self._positions


def _read_batch(batches: EpochBatches, dataset: TrainDataset, task: tuple[int, int]) -> TrainBatch:
    return collate_clips([dataset[key] for key in batches.keys(*task)])
