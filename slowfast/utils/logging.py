"""Logger of a run: screen and OUTPUT_DIR/stdout.log in rank 0, warnings only in other ranks.

One formatter handles every message: it hides secrets in URLs and escapes control characters.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from slowfast.utils.screen import Heartbeat, show, write_screen
from slowfast.utils.text import sanitize, sanitize_lines

_NAME = "slowfast"
_TABLE = "table"  # attribute of records that may contain newlines


def get_logger() -> logging.Logger:
    """Return the logger of the run. Before `start_logging` it prints warnings only."""
    return logging.getLogger(_NAME)


def warn_main(message: str) -> None:
    """Log a warning in rank 0 only, for messages that are the same in all processes."""
    if os.environ.get("RANK", "0") == "0":
        get_logger().warning(message)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning in rank 0, once per process and message."""
    warn_main(message)


def log_table(text: str) -> None:
    """Log a multi-line table, whose cells are already escaped, starting on a new line."""
    get_logger().info("\n" + text, extra={_TABLE: True})


class _Formatter(logging.Formatter):
    """Formatter that redacts secrets and escapes control characters."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        safe = sanitize_lines if getattr(record, _TABLE, False) else sanitize
        record.message = safe(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        return sanitize_lines(super().formatException(ei))  # type: ignore[arg-type]


class _Screen(logging.Handler):
    """Handler that writes to the current sys.stdout or sys.stderr, above a progress bar."""

    def __init__(self, error: bool = False) -> None:
        super().__init__()
        self._error = error

    def emit(self, record: logging.LogRecord) -> None:
        stream: TextIO | None = sys.stderr if self._error else sys.stdout
        try:
            write_screen(self.format(record) + "\n", stream)
        except Exception:
            self.handleError(record)


class _File(logging.FileHandler):
    """File handler that reports a write error once and lets the run continue."""

    _reported = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._reported:
            self._reported = True
            show(f"warning: {self.baseFilename} cannot be written: {sys.exc_info()[1]}", error=True)

    def close(self) -> None:
        with suppress(OSError):  # write errors have been reported
            super().close()


class _Buffer(logging.Handler):
    """Handler that keeps records until the log file is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def start_logging(rank: int) -> None:
    """Log to the screen and, in rank 0, keep messages for `open_log`. Other ranks show warnings only."""
    logger = get_logger()
    stop_logging()
    logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    line = "[%(asctime)s] %(message)s" if rank == 0 else f"[%(asctime)s rank {rank}] %(message)s"
    _add(_Screen(error=rank != 0), line)
    if rank == 0:
        _add(_Buffer(), line)
        Heartbeat.begin(lambda text: get_logger().info(text))


def logging_started() -> bool:
    """Return whether logging has been started and not stopped."""
    return any(isinstance(handler, _Screen) for handler in get_logger().handlers)


def open_log(output_dir: Path) -> None:
    """Append past and future messages to `output_dir/stdout.log`; no effect in ranks other than 0."""
    logger = get_logger()
    for buffer in [handler for handler in logger.handlers if isinstance(handler, _Buffer)]:
        file = _File(output_dir / "stdout.log", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(buffer.formatter)
        for record in buffer.records:
            file.handle(record)
        logger.removeHandler(buffer)
        logger.addHandler(file)


@contextmanager
def messages_on_screen() -> Iterator[None]:
    """Print plain log messages to the screen while in the context, for tools without a log file."""
    logger, handler = get_logger(), _Screen()
    before = logger.level
    logger.setLevel(logging.INFO)
    handler.setFormatter(_Formatter("%(message)s"))
    logger.addHandler(handler)
    Heartbeat.begin(lambda text: get_logger().info(text))
    try:
        yield
    finally:
        Heartbeat.end()
        logger.removeHandler(handler)
        logger.setLevel(before)


def stop_logging() -> None:
    """Remove and close all handlers."""
    Heartbeat.end()
    logger = get_logger()
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


def _add(handler: logging.Handler, line: str) -> None:
    handler.setFormatter(_Formatter(line, datefmt="%m/%d %H:%M:%S"))
    get_logger().addHandler(handler)
