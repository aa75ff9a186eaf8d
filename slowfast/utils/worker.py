"""Worker process of a pool: its loop and its messages in shared memory."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import signal
import socket
import struct
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any, BinaryIO

import torch

from slowfast.errors import UserError
from slowfast.utils.signals import end_with_parent
from slowfast.utils.user_modules import import_user_modules

_HEADER = struct.Struct("<qq")  # number of the message, number of parts
_SMALL = 2**18  # bytes of a message that is copied
_ALIGNMENT = 64  # bytes; arrays begin at multiples of it


class _Pickler(pickle.Pickler):
    """Pickler that leaves the data of CPU tensors and arrays to a list of buffers."""

    def __init__(self, file: io.BytesIO, keep: Callable[[pickle.PickleBuffer], Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffer_callback=keep)

    def reducer_override(self, value: Any) -> Any:
        if type(value) is torch.Tensor and value.device.type == "cpu" and value.dtype != torch.bfloat16:
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented


def send_message(channel: socket.socket, number: int, value: Any) -> None:
    """Send a picklable value.

    Args:
        channel: One end of a Unix socket pair.
        number: Any integer that tells the receiver which message this is.
        value: The value; CPU tensors and NumPy arrays in it are copied once, into shared memory.
    """
    body, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(body, buffers.append).dump(value)
    parts: list[memoryview] = [body.getbuffer(), *(buffer.raw() for buffer in buffers)]
    with _shared_file() as file:
        _write_parts(file.fileno(), parts)
        socket.send_fds(channel, [_HEADER.pack(number, len(parts))], [file.fileno()])


def receive_message(channel: socket.socket) -> tuple[int, Any]:
    """Receive the number and the value of the next message.

    Raises:
        EOFError: If the other end is closed.
    """
    header, descriptors, _, _ = socket.recv_fds(channel, _HEADER.size, 1)
    if len(header) < _HEADER.size or not descriptors:
        raise EOFError("the other process has closed its end")
    number, count = _HEADER.unpack(header)
    with os.fdopen(descriptors[0], "r+b", buffering=0) as file:
        memory = _contents(file.fileno())
    sizes = struct.unpack_from(f"<{count}q", memory)
    starts = _starts(count, sizes)
    parts = [memory[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return number, pickle.loads(parts[0], buffers=parts[1:])


def _contents(descriptor: int) -> memoryview:
    """Return a file's bytes, those of a large one without copying them; each of these keeps a descriptor open."""
    size = os.fstat(descriptor).st_size
    return memoryview(bytearray(os.pread(descriptor, size, 0)) if size <= _SMALL else mmap.mmap(descriptor, size))


def _starts(count: int, sizes: Sequence[int]) -> list[int]:
    """Return the byte at which each part begins, after the table of their sizes."""
    starts, end = [], 8 * count
    for size in sizes:
        starts.append(-(-end // _ALIGNMENT) * _ALIGNMENT)
        end = starts[-1] + size
    return starts


def _write_parts(descriptor: int, parts: Sequence[memoryview]) -> None:
    sizes = [part.nbytes for part in parts]
    table = struct.pack(f"<{len(parts)}q", *sizes)
    for start, part in zip([0, *_starts(len(parts), sizes)], [memoryview(table), *parts], strict=True):
        done = 0
        while done < part.nbytes:
            done += os.pwrite(descriptor, part[done:], start + done)


def _shared_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("slowfast"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


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


def serve(
    work: Callable[[Any], Any],
    channel: socket.socket,
    activity: Any,
    parent: int,
    of_main_thread: bool,
    modules: Sequence[str] = (),
) -> None:
    """Work on the tasks that come in, until the parent is gone.

    Args:
        work: Called with each task.
        channel: Where tasks come from and results go.
        activity: Shared with the parent: the current item and since when.
        parent: Number of the parent process.
        of_main_thread: Whether the parent's main thread started this process.
        modules: User modules that the parent has imported; a forked worker has them already.
    """
    global _activity
    for quiet in QUIET:
        signal.signal(quiet, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, QUIET)
    if of_main_thread:  # another thread may end before the process does
        end_with_parent(signal.SIGKILL)
    _activity = activity
    import_user_modules(modules)
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
