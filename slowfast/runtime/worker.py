"""The part of a pool of processes that runs in a worker."""

from __future__ import annotations

import os
import signal
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from slowfast.errors import UserError
from slowfast.runtime.first import end_with_parent
from slowfast.runtime.shared_message import receive_message, send_message

IDLE = -1  # of no item
_PARENT_POLL = 2.0  # seconds between two looks of an idle worker whether its parent is still there
QUIET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# In a worker: the item it is working on and since when (monotonic seconds), shared with the main process.
_activity: Any = None


def working_on(item: int) -> None:
    """In a worker, note the item that it begins with; the time limit counts from here. Elsewhere do nothing."""
    if _activity is not None:
        _activity[1] = time.monotonic()
        _activity[0] = item


def still_working() -> None:
    """In a worker, start the time limit of the current item anew. Elsewhere do nothing."""
    if _activity is not None:
        _activity[1] = time.monotonic()


class WorkerError(RuntimeError):
    """A worker process failed in a way that has nothing to do with one item."""


def serve(work: Callable[[Any], Any], channel: socket.socket, activity: Any, parent: int, of_main_thread: bool) -> None:
    """Work on the tasks that come in, until the parent is gone."""
    global _activity
    for quiet in QUIET:
        signal.signal(quiet, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, QUIET)
    if of_main_thread:  # another thread may end before the process does
        end_with_parent(signal.SIGKILL)
    _activity = activity
    working_on(IDLE)
    while True:
        while not connection.wait([channel], _PARENT_POLL):
            if os.getppid() != parent:
                os._exit(0)
        try:
            number, task = receive_message(channel)
        except (EOFError, ConnectionError):
            os._exit(0)
        result = _attempt(work, task)
        working_on(IDLE)
        try:
            send_message(channel, number, result)
        except ConnectionError:
            os._exit(0)
        except Exception as error:  # a result that cannot be sent
            send_message(channel, number, _portable(error))


def _attempt(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except BaseException as error:
        return _portable(error)


def _portable(error: BaseException) -> BaseException:
    """Return an error that the main process can raise: user errors as they are, others with their traceback."""
    if isinstance(error, UserError):
        return error
    return WorkerError(f"{type(error).__name__} in a worker process.\n{''.join(traceback.format_exception(error))}")
