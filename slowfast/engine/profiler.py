"""Profiler of a training or a test (PROFILE): a trace for Perfetto and a table of operators.

The ranges ``data loading``, ``forward``, ``backward`` and ``optimizer`` are named in the loops, see `named_range`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from slowfast.config.node import ConfigNode
from slowfast.utils.distributed import World
from slowfast.utils.files import atomic_path, atomic_write_text
from slowfast.utils.logging import get_logger

FOLDER = "profile"  # folder in OUTPUT_DIR
DATA_LOADING, FORWARD, BACKWARD, OPTIMIZER = RANGES = ("data loading", "forward", "backward", "optimizer")
ROWS = 40  # rows of the table of operators


def named_range(name: str) -> AbstractContextManager[Any]:
    """Return a context that appears by name in the trace; it costs microseconds while nothing is profiled."""
    return record_function(name)


class StepProfiler:
    """Profiler of a number of steps; it does nothing before and after them.

    A failure, such as a full disk, is only logged as a warning.

    Args:
        folder: Folder of the files.
        name: Prefix of their names, such as "train".
        wait: Steps before the profiler starts.
        warmup: Steps that are profiled and discarded.
        active: Steps to record.
        device: Device of the model.
    """

    def __init__(self, folder: Path, name: str, wait: int, warmup: int, active: int, device: torch.device) -> None:
        self.folder, self.name = folder, name
        self._skipped, self._needed, self._steps = wait + warmup, wait + warmup + active, 0
        on_gpu = device.type == "cuda"
        self._sort_by = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
        activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
        plan = schedule(wait=wait, warmup=warmup, active=active, repeat=1)
        self._profile: profile | None = profile(activities=activities, schedule=plan)
        self._profile.start()

    @classmethod
    def from_config(cls, cfg: ConfigNode, world: World, name: str) -> StepProfiler | None:
        """Build from PROFILE; None if it is off, and in all processes but the main one."""
        settings = cfg.PROFILE
        if not (settings.ENABLE and world.is_main):
            return None
        folder = Path(cfg.OUTPUT_DIR) / FOLDER
        return cls(folder, name, settings.WAIT, settings.WARMUP, settings.ACTIVE, world.device)

    def step(self) -> None:
        """Count a finished step; after the last one to record, write the files."""
        if self._profile is None:
            return
        self._steps += 1
        if self._steps < self._needed:
            self._profile.step()
        else:
            self.close()

    def close(self) -> None:
        """Write the recorded steps; no effect the second time."""
        recorder, self._profile = self._profile, None
        if recorder is None:
            return
        try:
            recorder.stop()
            self._write(recorder)
        except Exception as error:  # raised by the profiler or the disk
            get_logger().warning(f"Cannot write the profile of {self.name}: {error}")

    def _write(self, recorder: profile) -> None:
        recorded = self._steps - self._skipped
        if recorded <= 0:
            get_logger().warning(
                f"No profile of {self.name}: it ended after {self._steps} steps, of which PROFILE.WAIT and "
                f"PROFILE.WARMUP skip {self._skipped}. Set them lower"
            )
            return
        trace, table = self.folder / f"{self.name}_trace.json", self.folder / f"{self.name}_operators.txt"
        with atomic_path(trace, suffix=".json", setting="OUTPUT_DIR") as part:
            recorder.export_chrome_trace(str(part))
        rows = recorder.key_averages().table(sort_by=self._sort_by, row_limit=ROWS, max_name_column_width=60)
        atomic_write_text(table, rows + "\n", "OUTPUT_DIR")
        get_logger().info(f"Profiled {recorded} steps: {trace} (open it at ui.perfetto.dev), {table}")
