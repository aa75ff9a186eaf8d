"""Worker process of a pool: main loop, and messages through shared memory."""

from __future__ import annotations

import io
import mmap
import os
import pickle
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any, BinaryIO

from slowfast.errors import UserError
from slowfast.utils.imports import import_user_modules
from slowfast.utils.signals import STOP_SIGNALS, end_with_parent

_HEADER = struct.Struct("<qq")  # message number, number of parts
_SMALL = 2**18  # bytes up to which a message is copied
_ALIGNMENT = 64  # bytes; alignment of arrays


class _Pickler(pickle.Pickler):
    """Pickler that collects the data of CPU tensors and arrays as out-of-band buffers."""

    def __init__(self, file: io.BytesIO, keep: Callable[[pickle.PickleBuffer], Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL, buffer_callback=keep)

    def reducer_override(self, value: Any) -> Any:
        # If PyTorch has not been imported there are no tensors, and importing it takes 200 MiB.
        torch = sys.modules.get("torch")
        if torch is None:
            return NotImplemented
        if type(value) is torch.Tensor and value.device.type == "cpu" and value.dtype != torch.bfloat16:
            return torch.from_numpy, (value.detach().contiguous().numpy(),)
        return NotImplemented


def send_message(channel: socket.socket, number: int, value: Any) -> None:
    """Send a picklable value.

    Args:
        channel: One end of a Unix socket pair.
        number: Integer that identifies the message.
        value: The value. CPU tensors and NumPy arrays in it are copied once, into shared memory.
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
        raise EOFError("the other process has closed the channel")
    number, count = _HEADER.unpack(header)
    with os.fdopen(descriptors[0], "r+b", buffering=0) as file:
        memory = _contents(file.fileno())
    sizes = struct.unpack_from(f"<{count}q", memory)
    starts = _starts(count, sizes)
    parts = [memory[start : start + size] for start, size in zip(starts, sizes, strict=True)]
    return number, pickle.loads(parts[0], buffers=parts[1:])


def _contents(descriptor: int) -> memoryview:
    """Return the bytes of a file; a large one is mapped instead of copied, which keeps a descriptor open."""
    size = os.fstat(descriptor).st_size
    return memoryview(bytearray(os.pread(descriptor, size, 0)) if size <= _SMALL else mmap.mmap(descriptor, size))


def _starts(count: int, sizes: Sequence[int]) -> list[int]:
    """Return the byte offset of each part; the table of sizes comes first."""
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


IDLE = -1  # marks that a worker has no item
_PARENT_POLL = 2.0  # seconds between checks of an idle worker that its parent is alive
IGNORED_SIGNALS = (signal.SIGINT, *STOP_SIGNALS)

# In a worker: current item and its start time (monotonic seconds), shared with the main process.
_activity: Any = None


def working_on(item: int) -> None:
    """Record the item that a worker starts on and restart its time limit; no effect outside workers."""
    if _activity is not None:
        _activity[1] = time.monotonic()
        _activity[0] = item


def still_working() -> None:
    """Restart the time limit of the current item; no effect outside workers."""
    if _activity is not None:
        _activity[1] = time.monotonic()


class WorkerError(RuntimeError):
    """Failure of a worker process that is not due to a single item."""


def serve(
    work: Callable[[Any], Any],
    channel: socket.socket,
    activity: Any,
    parent: int,
    of_main_thread: bool,
    modules: Sequence[str] = (),
) -> None:
    """Process incoming tasks until the parent process exits.

    Args:
        work: Function called with each task.
        channel: Socket on which tasks arrive and results are sent.
        activity: Current item and its start time, shared with the parent.
        parent: Process ID of the parent.
        of_main_thread: Whether the parent's main thread started this process.
        modules: User modules to import; a forked worker already has them.
    """
    global _activity
    for quiet in IGNORED_SIGNALS:
        signal.signal(quiet, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    if of_main_thread:  # another thread of the parent may end before the parent process
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
        except Exception as error:  # the result cannot be sent
            send_message(channel, number, _portable(error))


def _attempt(work: Callable[[Any], Any], task: Any) -> Any:
    try:
        return work(task)
    except BaseException as error:
        return _portable(error)


def _portable(error: BaseException) -> BaseException:
    """Return an error for the main process to raise: user errors unchanged, others with their traceback."""
    if isinstance(error, UserError):
        return error
    return WorkerError(f"{type(error).__name__} in a worker process.\n{''.join(traceback.format_exception(error))}")
