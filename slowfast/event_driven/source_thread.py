"""Thread that reads a live source, and opens it again after it was lost."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod

import torch

from slowfast.datasets.types import failure_of, log_traceback
from slowfast.event_driven.connection import Connection


class SourceThread(ABC):
    """Reader of a live source in a thread.

    Args:
        index: Index of the source.
        name: Its name.
        connection: Connection to it; it is reopened after it has ended for any reason if there is a delay.
        arrived: Event to set when anything has happened.

    Attributes:
        error: Reason of the failure, once the source has ended.
        fatal: Error unrelated to the source, raised by the consumer.
        ran_out: Whether the source has ended before it was stopped.
    """

    def __init__(self, index: int, name: str, connection: Connection, arrived: threading.Event) -> None:
        self.connection, self._arrived = connection, arrived
        self.error: str | None = None
        self.fatal: BaseException | None = None
        self.ran_out = False
        self._index, self._name = index, name
        self._stop, self._done = threading.Event(), False
        self._thread = threading.Thread(target=self._run, daemon=True, name=f"reading {name}")

    @abstractmethod
    def read_once(self) -> None:
        """Open the source and read it until it ends; set `error` if it failed. Raises errors that are fatal."""

    def start(self) -> None:
        """Start to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
        self._stop.set()

    def close(self, wait: float) -> None:
        """Stop and wait up to `wait` seconds for the thread, which may be waiting for data."""
        self.stop()
        self._thread.join(wait)

    @property
    def opens_again(self) -> bool:
        """True if the source is opened again after it has ended."""
        return self.connection.reconnects_after_loss

    def reason(self, error: Exception) -> str:
        """Return why the source cannot be read; log the traceback of an unexpected error."""
        failure = failure_of(self._index, self._name, error)
        log_traceback(failure)
        return failure.reason

    def _run(self) -> None:
        torch.set_num_threads(1)  # limits this thread; live sources share the cores
        try:
            self.read_once()
            while self.opens_again and not self._stop.is_set():
                if not self._stop.wait(self.connection.lost(self.error or "the stream ended")):
                    self.read_once()
        except BaseException as error:  # for example a UserError, which the consumer raises
            self.fatal = error
        finally:
            self.ran_out, self._done = not self._stop.is_set(), True
            self._arrived.set()
