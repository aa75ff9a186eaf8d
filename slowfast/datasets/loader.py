"""Worker processes that read ahead, and what becomes of a run when one of them dies or hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader

from slowfast.datasets.collate import collate_clips
from slowfast.datasets.media_dataset import PLACE, PROCESS, SINCE, TestMedia, TrainMedia
from slowfast.datasets.order import EpochBatches
from slowfast.datasets.types import TestMedium, TrainBatch
from slowfast.errors import UserError

Item = TypeVar("Item")


class WorkerError(RuntimeError):
    """A worker process died or hung; says on which file."""


class MediaLoader(Generic[Item]):
    """Batches of a dataset, read by worker processes; a worker's end is told with the file it was on."""

    def __init__(self, dataset: TrainMedia | TestMedia[Any], options: dict[str, Any], workers: int) -> None:
        self.dataset, self.workers = dataset, workers
        # The loader draws a seed for its workers: not out of the generator that drives the network.
        self._loader: DataLoader[Any] = DataLoader(dataset, generator=torch.Generator(), **options)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Item]:
        with self.watched():
            yield from self._loader

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Turn a worker's end, which can surface anywhere in the main process, into one that names the file."""
        try:
            yield
        except UserError as error:  # raised in a worker: its last line is the message, the rest a traceback
            lines = str(error).strip().splitlines()
            if len(lines) < 2:
                raise
            self._kill()  # they ignore what would end them while the run ends, which waits for them
            raise type(error)(lines[-1].split(": ", 1)[-1]) from None
        except (RuntimeError, ConnectionError, EOFError) as error:
            text = str(error).strip()
            broken_pipe = self.workers > 0 and not isinstance(error, RuntimeError)  # died while handing a batch over
            if isinstance(error, WorkerError) or not (broken_pipe or "DataLoader" in text) or "Caught" in text:
                raise
            reading = self._reading()
            self._kill()
            raise WorkerError(f"{text or type(error).__name__}; the workers were reading: {reading}") from error

    def _reading(self) -> str:
        now = time.monotonic()
        rows = [row for row in self.dataset.activity.table[: self.workers].tolist() if row[PLACE] >= 0]
        rows.sort(key=lambda row: row[SINCE])
        names = (f"{self.dataset.records[int(r[PLACE])].path} (for {now - r[SINCE]:.0f} s)" for r in rows)
        return ", ".join(names) or "nothing"

    def _kill(self) -> None:
        """End all workers at once: a hung one would keep the main process from ending."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's handler would raise once more for each of them
        for row in self.dataset.activity.table[: self.workers].tolist():
            if row[PROCESS] > 0:
                try:
                    os.kill(int(row[PROCESS]), signal.SIGKILL)
                except ProcessLookupError:
                    pass


def start_worker(worker: int) -> None:
    """One thread a worker, and no ears for the signals that are meant for the main process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _options(workers: int, timeout: float, prefetch: int, pin: bool) -> dict[str, Any]:
    if workers == 0:
        return {"pin_memory": pin}
    # fork where there is one: a worker then starts in milliseconds instead of importing everything anew.
    start = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    return {
        "num_workers": workers,
        "pin_memory": pin,
        "timeout": timeout,
        "prefetch_factor": prefetch,
        "persistent_workers": True,
        "worker_init_fn": start_worker,
        "multiprocessing_context": start,
    }


class TrainLoader(MediaLoader[TrainBatch]):
    """This process's part of each training batch; `batches.start_at` chooses the epoch and the first step."""

    def __init__(
        self, dataset: TrainMedia, batches: EpochBatches, workers: int, timeout: float, prefetch: int, pin: bool
    ) -> None:
        self.batches = batches
        options = _options(workers, timeout, prefetch, pin)
        super().__init__(dataset, {"batch_sampler": batches, "collate_fn": collate_clips, **options}, workers)


class TestLoader(MediaLoader[TestMedium]):
    """This process's videos of a test set, one at a time: every `size`-th, beginning with its rank."""

    __test__ = False  # not a pytest class

    def __init__(
        self, dataset: TestMedia[Any], rank: int, size: int, workers: int, timeout: float, prefetch: int, pin: bool
    ) -> None:
        places = range(rank, len(dataset), size)
        options = _options(workers, timeout, prefetch, pin)
        super().__init__(dataset, {"batch_size": None, "sampler": places, "collate_fn": _as_is, **options}, workers)


def _as_is(video: TestMedium) -> TestMedium:
    return video
