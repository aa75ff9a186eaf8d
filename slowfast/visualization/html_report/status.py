"""State of a run: in progress, finished or stopped before its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

from slowfast.config.node import ConfigNode
from slowfast.utils.folder_lock import TESTING, TRAINING, is_locked
from slowfast.visualization.html_report.run_files import RunFiles
from slowfast.visualization.metrics_log import METRICS, Row
from slowfast.visualization.results import TEST_RESULTS


class RunStatus(Enum):
    """State of a run, by its name in the report."""

    RUNNING = "in progress"
    FINISHED = "finished"
    STOPPED = "stopped before its end"


def describe_run(
    files: RunFiles,
    cfg: ConfigNode | None,
    rows: Sequence[Row],
    events: Mapping[str, Any],
    state: RunStatus | None,
) -> dict[str, str]:
    """Return the state of a run and the progress of a training.

    Args:
        files: Files of the run.
        cfg: Its config; None if it cannot be read.
        rows: Rows of metrics.jsonl.
        events: Content of event_results.json, of a later run in the folder of the training.
        state: State of the run; None to infer it from its files.
    """
    state = state or _inferred(files, cfg, rows, events)
    epochs = [row["epoch"] for row in rows if isinstance(row.get("epoch"), (int, float))]
    progress = ""
    if epochs and not events:
        end = "" if cfg is None else f" of {cfg.SOLVER.MAX_EPOCH}"
        progress = f"epoch {max(epochs):g}{end}"
    return {"state": state.name.lower(), "text": state.value, "progress": progress}


def _inferred(files: RunFiles, cfg: ConfigNode | None, rows: Sequence[Row], events: Mapping[str, Any]) -> RunStatus:
    if any(is_locked(files.folder, name) for name in (TRAINING, TESTING)):
        return RunStatus.RUNNING
    if events:
        return RunStatus.FINISHED if events.get("finished", True) else RunStatus.STOPPED
    if _is_tested(files.folder / METRICS, files.folder / TEST_RESULTS):
        return RunStatus.FINISHED
    reached = max((row["epoch"] for row in rows if isinstance(row.get("epoch"), (int, float))), default=0)
    if cfg is not None and (cfg.TEST.ENABLE or reached < cfg.SOLVER.MAX_EPOCH):
        return RunStatus.STOPPED
    return RunStatus.FINISHED


def _is_tested(training: Path, test: Path) -> bool:
    """Return whether there is a test, and no training after it."""
    if not test.is_file():
        return False
    return not training.is_file() or training.stat().st_mtime <= test.stat().st_mtime
