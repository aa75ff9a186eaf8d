"""Checks of worker processes."""

from __future__ import annotations

import gc

import psutil


def no_workers() -> bool:
    """Check that no child process is left, except the one of Python that cleans up shared memory.

    Loaders that nobody uses any more end their workers.
    """
    gc.collect()
    return all("resource_tracker" in " ".join(child.cmdline()) for child in psutil.Process().children())
