"""Running a function over many inputs in processes, of which any may crash."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from slowfast.runtime.stop_signal import Stopped

Input = TypeVar("Input")
Output = TypeVar("Output")


class Crash(Exception):
    """The process that worked on an input died, and died again when it worked on that input alone."""


def run_in_processes(
    function: Callable[[Input], Output], inputs: Iterable[Input], workers: int
) -> Iterator[tuple[Input, Output | Crash]]:
    """Each input with its result, in the order they are done; an exception of `function` is raised here and ends all.

    When a process dies, those then at work are tried again one by one, which tells the culprit.
    """
    todo = deque(inputs)
    while todo:
        suspects = yield from _one_pool(function, todo, workers)
        for item in suspects:
            if (yield from _one_pool(function, deque([item]), 1)):
                yield item, Crash("the process that worked on it died")


def _one_pool(
    function: Callable[[Input], Output], todo: deque[Input], workers: int
) -> Generator[tuple[Input, Output], None, list[Input]]:
    """Results of one pool, taking from `todo` until it is empty or a process dies; the inputs then at work."""
    at_work: dict[Future[Output], Input] = {}
    context = multiprocessing.get_context("spawn")  # forking with other threads about is not safe
    quiet = signal.SIGINT, signal.SIG_IGN  # Ctrl-C ends the run from its main process, after the work begun
    with ProcessPoolExecutor(min(workers, len(todo)), context, signal.signal, quiet) as pool:
        try:
            while todo or at_work:
                while todo and len(at_work) < workers:
                    future = pool.submit(function, todo[0])
                    at_work[future] = todo.popleft()
                finished, _ = wait(at_work, return_when=FIRST_COMPLETED)
                for future in finished:
                    result = future.result()
                    yield at_work.pop(future), result
        except BrokenProcessPool:
            return list(at_work.values())
        except Stopped:  # at once: what they have not finished is removed by the next run
            for process in multiprocessing.active_children():
                process.kill()
            raise
    return []
