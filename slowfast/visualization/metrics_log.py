"""Logs of metrics during training: metrics.jsonl and TensorBoard."""

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
from slowfast.utils.files import atomic_write_text, disk_error
from slowfast.utils.json_files import from_json, to_json
from slowfast.utils.logging import get_logger

Row = dict[str, Any]


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of a log; damaged lines are skipped with a warning, an incomplete last line silently."""
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
        get_logger().warning(f"{path}: skipping {len(damaged)} damaged lines, the first of them line {damaged[0]}")
    return rows


def _parsed(line: str) -> Row | None:
    """Parse a line; None if it is not a row with a step number."""
    try:
        row = from_json(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


class MetricsLog:
    """Writer of metrics.jsonl, which keeps the rows of the run that it resumes.

    Args:
        path: File to write.
        done_steps: Steps done so far; rows of later steps are dropped, because the steps will be repeated.

    Raises:
        DiskError: If the disk is full or cannot be written to; the file then ends with the last complete row.
    """

    def __init__(self, path: Path, done_steps: int) -> None:
        rows = [row for row in read_metrics(path) if row["step"] <= done_steps]
        atomic_write_text(path, "".join(_line(row) for row in rows), "OUTPUT_DIR")
        self._path = path
        self._file = path.open("ab", buffering=0)  # unbuffered: closing must not repeat a failed write

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


class TensorBoardWriter:
    """Writer of scalars and images for TensorBoard; without TensorBoard installed it warns once and does nothing.

    Args:
        folder: Folder of the event files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            get_logger().warning(
                f"TENSORBOARD.ENABLE is True, but TensorBoard cannot be imported ({error}). Run "
                'pip install "slowfast[tensorboard]"'
            )
            self._writer: Any = None
        else:
            _silence_writer_thread()
            with self._disk_errors():
                self._writer = SummaryWriter(str(folder))

    @classmethod
    def from_config(cls, cfg: ConfigNode, world: World) -> TensorBoardWriter | None:
        """Build from TENSORBOARD; None if it is off, and in all processes but the main one."""
        if not (world.is_main and cfg.TENSORBOARD.ENABLE):
            return None
        return cls(Path(cfg.TENSORBOARD.LOG_DIR or Path(cfg.OUTPUT_DIR) / "tensorboard"))

    def write(self, row: Mapping[str, Any]) -> None:
        """Write each number of a row of metrics.jsonl as split/name, at the row's step."""
        if self._writer is None:
            return
        with self._disk_errors():
            for name, value in row.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def write_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Write an image uint8 (H, W, 3) RGB."""
        if self._writer is None:
            return
        try:
            with self._disk_errors():
                self._writer.add_image(name, image, step, dataformats="HWC")
        except ImportError as error:  # only some versions of TensorBoard depend on Pillow
            get_logger().warning(f"Skipping the image {name} for TensorBoard: Pillow cannot be imported ({error})")

    def close(self) -> None:
        """Write everything that is still in memory."""
        if self._writer is None:
            return
        with self._disk_errors():
            self._writer.close()

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        """Turn errors of a full disk into DiskError; afterwards nothing is written any more."""
        try:
            yield
        except OSError as error:
            self._writer = None
            raise disk_error(error, self._folder / "events.out.tfevents", "OUTPUT_DIR") or error from error


def _silence_writer_thread() -> None:
    """Do not print disk errors of TensorBoard's thread: the next call of the writer raises them."""
    previous = threading.excepthook
    if getattr(previous, "silences_tensorboard", False):
        return

    def hook(args: threading.ExceptHookArgs, /) -> None:
        of_writer = type(args.thread).__module__.partition(".")[0] == "tensorboard"
        if not (of_writer and isinstance(args.exc_value, OSError)):
            previous(args)

    hook.silences_tensorboard = True  # type: ignore[attr-defined]
    threading.excepthook = hook
