"""Fault-tolerant pool of worker processes: a crashed or hung worker costs its current task, never the run.

Workers ignore signals meant for the main process, exit when it exits for any reason, and are killed when the pool is
closed or the interpreter exits.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from slowfast.utils.imports import imported_modules
from slowfast.utils.worker import IDLE, IGNORED_SIGNALS, WorkerError, receive_message, send_message, serve

Task = TypeVar("Task")
Result = TypeVar("Result")

_STARTING = -2
_START_LIMIT = 120.0  # seconds for a worker to start
_POLL = 1.0  # seconds between checks for workers that exceed the time limit
_MOST_IDLE_DEATHS = 3  # consecutive deaths of idle workers
_KILL_WAIT = 3.0  # seconds for killed workers to exit; one that waits for an unresponsive disk may not


@dataclass(frozen=True)
class TaskResult(Generic[Result]):
    """Result of a task."""

    number: int
    result: Result


@dataclass(frozen=True)
class LostTask:
    """Task whose worker process died or was killed.

    Attributes:
        number: Number of the task.
        item: Last item recorded with :func:`slowfast.utils.worker.working_on`.
        reason: Cause, such as "the worker reading it was killed by SIGSEGV".
        killed: Whether the process was ended by SIGKILL, as the kernel does when memory runs out.
    """

    number: int
    item: int
    reason: str
    killed: bool = False

    def __str__(self) -> str:
        return self.reason


@dataclass
class _Worker:
    process: Any
    channel: socket.socket
    activity: Any
    tasks: deque[tuple[int, Any]] = field(default_factory=deque)  # assigned tasks, oldest first


class WorkerPool(Generic[Task, Result]):
    """Pool of processes that are replaced when they die or exceed the time limit of an item.

    Args:
        work: Function called with each task in a worker. Its exceptions are raised in the main process.
        workers: Number of processes, which are started on demand.
        timeout: Time limit in seconds of one item (see :func:`slowfast.utils.worker.working_on`); 0 for none.
        timeout_reason: Function that describes an item which exceeded the limit (seconds).
        start_method: Start method of :mod:`multiprocessing`.
        ahead: Maximum number of tasks assigned to a worker at a time.
    """

    def __init__(
        self,
        work: Callable[[Task], Result],
        workers: int,
        *,
        timeout: float = 0,
        timeout_reason: Callable[[float], str] = "it took longer than {:g} s".format,
        start_method: str = "spawn",
        ahead: int = 1,
    ) -> None:
        self._work, self._size, self._ahead = work, workers, ahead
        self._timeout, self._timeout_reason = timeout, timeout_reason
        self._context: Any = multiprocessing.get_context(start_method)
        self._workers: list[_Worker] = []
        self._waiting: deque[tuple[int, Task]] = deque()
        self._owner = os.getpid()
        self._idle_deaths = 0
        self._dropped: set[int] = set()  # numbers of tasks whose results are discarded
        _pools.add(self)
        weakref.finalize(self, _kill, self._workers, self._owner).atexit = False

    def submit(self, number: int, task: Task, *, first: bool = False) -> None:
        """Add a task at the end of the queue, or at its front with `first`."""
        (self._waiting.appendleft if first else self._waiting.append)((number, task))

    def cancel_all(self) -> None:
        """Cancel all tasks: queued ones are dropped, the results of running ones discarded."""
        self._waiting.clear()
        self._dropped |= {number for worker in self._workers for number, _ in worker.tasks}

    def wait(self) -> TaskResult[Result] | LostTask:
        """Wait for the next result or lost task.

        Raises:
            WorkerError: If a worker died without an item or raised an exception.
            UserError: If a worker raised one.
        """
        while True:
            self._assign_tasks()
            event = self._next_event()
            if event is None:
                continue
            if event.number not in self._dropped:
                return event
            self._dropped.discard(event.number)

    def _next_event(self) -> TaskResult[Result] | LostTask | None:
        by_handle: dict[Any, _Worker] = {}
        for worker in self._workers:
            by_handle[worker.channel] = worker
            by_handle[worker.process.sentinel] = worker
        ready = set(connection.wait(by_handle, _POLL))
        for worker in list(self._workers):
            if worker.channel in ready:
                try:
                    return self._receive(worker)
                except (EOFError, ConnectionError):
                    return self._remove_dead(worker)
            if worker.process.sentinel in ready:
                return self._remove_dead(worker)
        return next((lost for worker in list(self._workers) if (lost := self._overdue(worker))), None)

    def close(self) -> None:
        """Kill all workers. The pool starts new ones when it is used again."""
        self._waiting.clear()
        self._dropped.clear()
        _kill(self._workers, self._owner)

    def __enter__(self) -> WorkerPool[Task, Result]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # ------------------------------------------------------------------ workers
    def _assign_tasks(self) -> None:
        """Assign queued tasks to the least busy workers, starting workers as needed."""
        while self._waiting:
            worker = min(self._workers, key=lambda one: len(one.tasks), default=None)
            if (worker is None or worker.tasks) and len(self._workers) < self._size:
                worker = self._start()
            if worker is None or len(worker.tasks) >= self._ahead:
                return
            number, task = self._waiting.popleft()
            if number in self._dropped:
                self._dropped.discard(number)
                continue
            worker.tasks.append((number, task))
            try:
                send_message(worker.channel, number, task)
            except (BrokenPipeError, ConnectionError):
                return  # it has died; its tasks are reassigned once that is detected

    def _start(self) -> _Worker:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        activity = self._context.RawArray("d", [_STARTING, time.monotonic()])
        main_thread = threading.current_thread() is threading.main_thread()
        arguments = (self._work, theirs, activity, os.getpid(), main_thread, imported_modules())
        process = self._context.Process(target=serve, args=arguments, daemon=True)
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)  # blocked until the worker ignores them
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
            theirs.close()
        worker = _Worker(process, ours, activity)
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker) -> TaskResult[Result]:
        number, result = receive_message(worker.channel)
        worker.tasks.popleft()
        self._idle_deaths = 0
        if isinstance(result, BaseException) and number not in self._dropped:
            raise result
        return TaskResult(number, result)

    def _remove_dead(self, worker: _Worker) -> LostTask | None:
        """Remove a worker that has exited by itself."""
        worker.process.join(_KILL_WAIT)
        code = worker.process.exitcode
        killed = code == -signal.SIGKILL
        how = f"was killed by {_signal_name(-code)}" if code is not None and code < 0 else f"exited with status {code}"
        return self._remove(worker, how, killed)

    def _overdue(self, worker: _Worker) -> LostTask | None:
        """Kill a worker that exceeds the time limit."""
        item, since = int(worker.activity[0]), float(worker.activity[1])
        if item == _STARTING:
            limit = _START_LIMIT
        elif item == IDLE or not self._timeout:
            return None
        else:
            limit = self._timeout
        if not worker.tasks or time.monotonic() - since <= limit:
            return None
        worker.process.kill()
        worker.process.join(_KILL_WAIT)
        if item == _STARTING:
            return self._remove(worker, f"did not start within {limit:g} s")
        return self._remove(worker, "", reason=self._timeout_reason(limit))

    def _remove(self, worker: _Worker, how: str, killed: bool = False, reason: str = "") -> LostTask | None:
        """Remove a worker and reassign the tasks that it had not started.

        Raises:
            WorkerError: If workers repeatedly die without an item.
        """
        self._workers.remove(worker)
        worker.channel.close()
        if not worker.tasks:
            return None  # it was idle; another one is started on demand
        item = int(worker.activity[0])
        if item < 0:
            self._waiting.extendleft(reversed(worker.tasks))
            self._idle_deaths += 1
            if self._idle_deaths < _MOST_IDLE_DEATHS:
                return None
            raise WorkerError(
                f"A worker process {how} while it was not reading a file, {self._idle_deaths} times in a row. If the "
                "memory is full, use fewer workers"
            )
        number, _ = worker.tasks.popleft()
        self._waiting.extendleft(reversed(worker.tasks))
        return LostTask(number, item, reason or f"the worker reading it {how}", killed)


_pools: weakref.WeakSet[WorkerPool[Any, Any]] = weakref.WeakSet()


@atexit.register  # registered after the handler of `multiprocessing.util`, which waits without limit; so it runs first
def _close_all() -> None:
    for pool in list(_pools):
        pool.close()


def _kill(workers: list[_Worker], owner: int) -> None:
    """Kill all workers and clear the list; no effect in a forked copy of their owner."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.process.kill()
    until = time.monotonic() + _KILL_WAIT
    for worker in workers:
        worker.process.join(max(until - time.monotonic(), 0))
        worker.channel.close()
    workers.clear()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
