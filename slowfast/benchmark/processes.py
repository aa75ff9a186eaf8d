"""Fresh processes to measure in: one like a loader's worker on one core, and one whose peak memory is its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import ParamSpec, TypeVar

from slowfast.datasets.loader import start_worker

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_fresh_process(
    function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """The function's result, computed in a process that has done nothing else; its exception is raised here."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def on_one_core(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """The same in a process set up like a worker of the loader, held to one core where the system allows that."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_start) as pool:
        return pool.submit(function, *args, **kwargs).result()


def _start() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    start_worker(0)
