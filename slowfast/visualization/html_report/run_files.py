"""Files of a run that the report is built from; a damaged file only affects its own section."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.errors import UserError
from slowfast.utils.files import MIB
from slowfast.utils.json_files import from_json
from slowfast.utils.text_files import UnreadableTextError, read_csv, read_text_file
from slowfast.visualization.metrics_log import METRICS, Row, read_metrics

CONFIG, TEST_CONFIG = "config.yaml", "config_test.yaml"
MAX_BYTES = 512 * MIB


@dataclass
class RunFiles:
    """Reader of the files of a run.

    Attributes:
        folder: OUTPUT_DIR.
        own: Config of the run that writes the report, which saves reading it from a file; None for another program.
        problems: What could not be read, one line each; filled while the files are read.
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
        """Return the content of a JSON file whose top level is a `kind` (dict or list); an empty one without it."""
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
        """Return the rows of a CSV file by column; none without it."""
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
