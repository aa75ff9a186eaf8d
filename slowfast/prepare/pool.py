"""Running a function over many files in processes, of which any may crash or hang."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from itertools import islice
from typing import TypeVar

from slowfast.runtime.worker import IDLE, working_on
from slowfast.runtime.worker_pool import Lost, WorkerPool

Input = TypeVar("Input")
Output = TypeVar("Output")

STALL_LIMIT = 300.0  # seconds in which a file must get on; every frame and every part of a recording counts


def run_in_processes(
    function: Callable[[Input], Output], inputs: Iterable[Input], workers: int, stall_limit: float | None = None
) -> Generator[tuple[Input, Output | Lost]]:
    """Yield each input with its result, in the order they are done.

    A process that dies or gets no further costs its input only; one that was killed, as when the memory is full, lets
    its input be tried once more. An exception of `function` is raised here and ends all.

    Args:
        function: Picklable function; it calls :func:`still_working` whenever it has got on.
        inputs: Picklable inputs.
        workers: Number of processes, started with "spawn": forking with other threads about is not safe.
        stall_limit: Seconds without progress after which a process is killed (default STALL_LIMIT).
    """
    limit = STALL_LIMIT if stall_limit is None else stall_limit
    left = enumerate(inputs)
    given: dict[int, Input] = {}
    killed: set[int] = set()
    with WorkerPool[Input, Output](partial(_work, function), workers, timeout=limit, timeout_reason=_stalled) as pool:
        while True:
            for number, item in islice(left, max(workers - len(given), 0)):
                given[number] = item
                pool.submit(number, item)
            if not given:
                return
            event = pool.wait()
            if isinstance(event, Lost) and event.killed and event.number not in killed:
                killed.add(event.number)
                pool.submit(event.number, given[event.number], first=True)
                continue
            yield given.pop(event.number), event if isinstance(event, Lost) else event.result


def _work(function: Callable[[Input], Output], item: Input) -> Output:
    working_on(0)
    try:
        return function(item)
    finally:
        working_on(IDLE)


def _stalled(seconds: float) -> str:
    return f"reading got no further for {seconds:g} s"
