"""Checks of worker processes."""

from __future__ import annotations

import gc

import psutil


def no_workers() -> bool:
    """Check that no child process is left, except those of Python for shared memory and of tests.warm_start.

    Loaders that nobody uses any more end their workers.
    """
    gc.collect()
    servers = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
    lines = [" ".join(child.cmdline()) for child in psutil.Process().children()]
    return all(any(server in line for server in servers) for line in lines)
