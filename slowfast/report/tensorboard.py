"""Training figures as TensorBoard event files; an optional extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slowfast.runtime.logging import get_logger


class Board:
    """Writes scalars; without TensorBoard installed it says so once and writes nothing."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            get_logger().warning(
                f"TENSORBOARD.ENABLE is set, but TensorBoard cannot be imported ({error}); nothing is written for it: "
                'pip install "slowfast[tensorboard]"'
            )
            self._writer: Any = None
        else:
            self._writer = SummaryWriter(str(folder))

    def write(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl: each number under split/name, at the row's step."""
        if self._writer is None:
            return
        for name, value in row.items():
            if isinstance(value, (int, float)) and name != "step":
                self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
