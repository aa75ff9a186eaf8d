"""report.html of a run: updated during training, and written after training and testing."""

from __future__ import annotations

import time
from pathlib import Path

from slowfast.config.node import ConfigNode
from slowfast.engine.tasks import Task, task_class
from slowfast.utils.logging import get_logger
from slowfast.utils.screen import phase
from slowfast.visualization.html_report.page import REPORT, write_report
from slowfast.visualization.html_report.run_files import RunStatus

_MAX_SHARE = 0.05  # maximum fraction of the training time that updates of the report may take


def report_run(cfg: ConfigNode, state: RunStatus, task: Task | None = None) -> dict[str, Path]:
    """Write the report of a run and return its description and path; any failure is only logged as a warning.

    Args:
        cfg: Config of the run.
        state: State of the run.
        task: Task of the run, whose metrics are shown; that of MODEL.TASK by default.
    """
    folder = Path(cfg.OUTPUT_DIR)
    try:
        with phase("writing the report"):
            metrics = (task or task_class(cfg)).reported_metrics()
            return {"report": write_report(folder, metrics, state, cfg)}
    except Exception as error:
        get_logger().warning(f"Cannot write {folder / REPORT}: {error}")
        return {}


class TrainingReport:
    """Report of a training in progress, for the main process.

    Args:
        cfg: Config of the run.
        task: Task of the training.
    """

    def __init__(self, cfg: ConfigNode, task: Task) -> None:
        self._cfg, self._task = cfg, task
        self._due = 0.0  # earliest time.monotonic() of the next update

    def update(self) -> None:
        """Write the report, unless the last update was so recent that updates would slow down the training."""
        start = time.monotonic()
        if start < self._due:
            return
        report_run(self._cfg, RunStatus.RUNNING, self._task)
        end = time.monotonic()
        self._due = end + (end - start) / _MAX_SHARE
