"""One logger for the run: the screen and OUTPUT_DIR/stdout.log in the main process, warnings elsewhere."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = "slowfast"


def get_logger() -> logging.Logger:
    """The run's logger; usable before `start_logging`, then it prints warnings only."""
    return logging.getLogger(_NAME)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning in rank 0 (of torchrun), unless this process has logged the same one before."""
    if os.environ.get("RANK", "0") == "0":
        get_logger().warning(message)


def start_logging(output_dir: Path, rank: int) -> None:
    """Send messages to the screen and, in rank 0, to `output_dir/stdout.log` (appended)."""
    logger = get_logger()
    stop_logging()
    logger.propagate = False
    if rank == 0:
        logger.setLevel(logging.INFO)
        handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
        handlers.append(logging.FileHandler(output_dir / "stdout.log", encoding="utf-8"))
        line = "[%(asctime)s] %(message)s"
    else:
        logger.setLevel(logging.WARNING)
        handlers = [logging.StreamHandler(sys.stderr)]
        line = f"[%(asctime)s rank {rank}] %(message)s"
    for handler in handlers:
        handler.setFormatter(logging.Formatter(line, datefmt="%m/%d %H:%M:%S"))
        logger.addHandler(handler)


@contextmanager
def messages_on_screen() -> Iterator[None]:
    """While this is open, plain messages go to the screen: for tools that leave no log."""
    logger, handler = get_logger(), logging.StreamHandler(sys.stdout)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def stop_logging() -> None:
    """Close the logger's files."""
    logger = get_logger()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
