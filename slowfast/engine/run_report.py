"""report.html of a run: updated during training, and written after training and testing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
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


class TimeShare:
    """Limits repeated work to a share of the time: after it has taken s seconds, it is due again s / share later.

    Args:
        share: Largest share of the time.
    """

    def __init__(self, share: float = _MAX_SHARE) -> None:
        self._share, self._due = share, 0.0  # time.monotonic() from which on it is due

    @property
    def is_due(self) -> bool:
        """True if enough time has passed since the last work."""
        return time.monotonic() >= self._due

    @contextmanager
    def work(self) -> Iterator[None]:
        """Return a context that measures the work done inside."""
        start = time.monotonic()
        try:
            yield
        finally:
            end = time.monotonic()
            self._due = end + (end - start) / self._share


class TrainingReport:
    """Report of a training in progress, for the main process.

    Args:
        cfg: Config of the run.
        task: Task of the training.
    """

    def __init__(self, cfg: ConfigNode, task: Task) -> None:
        self._cfg, self._task = cfg, task
        self._time = TimeShare()

    def update(self) -> None:
        """Write the report, unless the last update was so recent that updates would slow down the training."""
        if self._time.is_due:
            with self._time.work():
                report_run(self._cfg, RunStatus.RUNNING, self._task)
