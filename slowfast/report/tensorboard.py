"""Training figures as TensorBoard event files; an optional extra."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from slowfast.config.node import ConfigNode
from slowfast.runtime.distributed import World
from slowfast.runtime.logging import get_logger


class Board:
    """Writes scalars and images; without TensorBoard installed it says so once and writes nothing."""

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
            try:
                self._writer = SummaryWriter(str(folder))
            except OSError as error:
                get_logger().warning(f"TENSORBOARD.ENABLE is set, but {folder} cannot be written to: {error}")
                self._writer = None

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
        for name, value in row.items():
            if isinstance(value, (int, float)) and name != "step":
                self._writer.add_scalar(f"{row['split']}/{name}", value, row["step"])

    def picture(self, name: str, image: np.ndarray, step: int) -> None:
        """An image uint8 (H, W, 3), R G B, at a step."""
        if self._writer is None:
            return
        try:
            self._writer.add_image(name, image, step, dataformats="HWC")
        except ImportError as error:  # Pillow, which TensorBoard itself has not always needed
            get_logger().warning(f"{name} is not written for TensorBoard: images need Pillow ({error})")

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
