"""Reader of the files of a run for its report, and the state of the run inferred from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError
from slowfast.utils.files import MIB
from slowfast.utils.locks import TESTING, TRAINING, is_locked
from slowfast.utils.paths import UnreadableTextError, read_text_file
from slowfast.utils.text_files import from_json, read_csv
from slowfast.visualization.metrics_log import METRICS, Row, read_metrics
from slowfast.visualization.results import TEST_RESULTS

CONFIG, TEST_CONFIG = "config.yaml", "config_test.yaml"
MAX_BYTES = 512 * MIB


@dataclass
class RunFiles:
    """Reader of the files of a run.

    Attributes:
        folder: OUTPUT_DIR.
        own: Config, if the run itself writes the report; None to read it from a file.
        problems: One line for each problem found while files were read.
    """

    folder: Path
    own: ConfigNode | None = None
    problems: list[str] = field(default_factory=list)
    _configs: dict[str, ConfigNode | None] = field(default_factory=dict)

    def config(self, name: str) -> ConfigNode | None:
        """Return the config in a YAML file, which is read once; None if there is none or it cannot be read."""
        if self.own is not None and name == CONFIG and (self.own.TRAIN.ENABLE or not self._has(TEST_CONFIG)):
            return self.own
        if name not in self._configs:
            self._configs[name] = self._read_config(self.folder / name)
        return self._configs[name]

    def _read_config(self, path: Path) -> ConfigNode | None:
        if not path.exists():
            return None
        cfg = get_cfg()
        try:
            cfg.merge_from_file(path)
        except UserError as error:
            self.problems.append(str(error))
            return None
        return cfg

    def _has(self, name: str) -> bool:
        return (self.folder / name).exists()

    def metrics(self) -> list[Row]:
        """Return the rows of metrics.jsonl."""
        try:
            return read_metrics(self.folder / METRICS)
        except OSError as error:
            self.problems.append(f"{METRICS} cannot be read: {error}")
            return []

    def json(self, name: str, kind: type) -> Any:
        """Return the content of a JSON file whose top level is a `kind` (dict or list); empty if there is none."""
        text = self._text(name)
        try:
            content = from_json(text) if text else kind()
            if isinstance(content, kind):
                return content
            self.problems.append(f"{name} cannot be read: it is not a JSON {'object' if kind is dict else 'list'}")
        except (ValueError, RecursionError) as error:
            self.problems.append(f"{name} cannot be read: {error}")
        return kind()

    def csv(self, name: str) -> list[dict[str, str]]:
        """Return the rows of a CSV file by column; empty if there is none."""
        text = self._text(name)
        try:
            return read_csv(text)
        except ValueError as error:
            self.problems.append(f"{name} cannot be read: {error}")
            return []

    def _text(self, name: str) -> str:
        try:
            return read_text_file(self.folder / name, MAX_BYTES)
        except UnreadableTextError as error:
            if not error.missing:
                self.problems.append(f"{name} {error}")
            return ""


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
    """Return whether there is a test that no training has followed."""
    if not test.is_file():
        return False
    return not training.is_file() or training.stat().st_mtime <= test.stat().st_mtime
