"""Metrics over training: metrics.jsonl and TensorBoard."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.utils.distributed import World
from slowfast.utils.files import disk_error, write_whole
from slowfast.utils.json_files import from_json, to_json
from slowfast.utils.logging import get_logger

Row = dict[str, Any]


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of a log; a last line torn by a killed process and damaged lines, which are reported, are not."""
    if not path.is_file():
        return []
    rows, damaged = [], []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        row = _parsed(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            damaged.append(number)
    if damaged:
        get_logger().warning(f"{path}: skipping {len(damaged)} damaged lines, the first is line {damaged[0]}")
    return rows


def _parsed(line: str) -> Row | None:
    """Parse a line; None if it is no row with the number of a step."""
    try:
        row = from_json(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class MetricsLog:
    """Log of rows, appended one by one; resuming from a checkpoint drops the rows of steps that will be repeated.

    Raises:
        DiskError: If the disk does not take a row. No part of the row stays in the file.
    """

    def __init__(self, path: Path, done_steps: int) -> None:
        rows = [row for row in read_metrics(path) if row["step"] <= done_steps]
        write_whole(path, "".join(_line(row) for row in rows), "OUTPUT_DIR")
        self._path = path
        self._file = path.open("ab", buffering=0)  # a buffer would try again, and fail again, when it is closed

    def write(self, row: Row) -> None:
        """Append a row; it has `split` (train or val), `epoch` and `step` (steps done since the start)."""
        line, size = _line(row).encode(), self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            self._file.truncate(size)
            raise disk_error(error, self._path, "OUTPUT_DIR") or error from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _line(row: Row) -> str:
    return to_json(row) + "\n"


class Board:
    """Writes scalars and images; without TensorBoard installed it says so once and writes nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            get_logger().warning(
                f"TENSORBOARD.ENABLE is set, but TensorBoard cannot be imported ({error}); nothing is written for it: "
                'pip install "slowfast[tensorboard]"'
            )
            self._writer: Any = None
        else:
            _hush_writer_thread()
            with self._disk_watched():
                self._writer = SummaryWriter(str(folder))

    @classmethod
    def from_config(cls, cfg: ConfigNode, world: World) -> Board | None:
        """As TENSORBOARD says; None where it is off, and on all processes but the first."""
        if not (world.is_main and cfg.TENSORBOARD.ENABLE):
            return None
        return cls(Path(cfg.TENSORBOARD.LOG_DIR or Path(cfg.OUTPUT_DIR) / "tensorboard"))

    def write(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl: each number under split/name, at the row's step."""
        if self._writer is None:
            return
        with self._disk_watched():
            for name, value in row.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """An image uint8 (H, W, 3), R G B, at a step."""
        if self._writer is None:
            return
        try:
            with self._disk_watched():
                self._writer.add_image(name, image, step, dataformats="HWC")
        except ImportError as error:  # Pillow, which TensorBoard itself has not always needed
            get_logger().warning(f"{name} is not written for TensorBoard: images need Pillow ({error})")

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is None:
            return
        with self._disk_watched():
            self._writer.close()

    @contextmanager
    def _disk_watched(self) -> Iterator[None]:
        """Turn what the writer raises on a full disk into a DiskError, and write no more after it."""
        try:
            yield
        except OSError as error:
            self._writer = None
            raise disk_error(error, self._folder / "events.out.tfevents", "OUTPUT_DIR") or error from error


def _hush_writer_thread() -> None:
    """Keep disk errors of TensorBoard's thread off the screen: the next call of the writer raises them."""
    before = threading.excepthook
    if getattr(before, "hushes_tensorboard", False):
        return

    def hook(args: threading.ExceptHookArgs, /) -> None:
        of_writer = type(args.thread).__module__.partition(".")[0] == "tensorboard"
        if not (of_writer and isinstance(args.exc_value, OSError)):
            before(args)

    hook.hushes_tensorboard = True  # type: ignore[attr-defined]
    threading.excepthook = hook
