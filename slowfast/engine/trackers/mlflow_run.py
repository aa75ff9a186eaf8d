"""MLflow runs on a tracking server or in a local folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from slowfast.config.node import ConfigNode
from slowfast.engine.trackers.base import (
    FAILED,
    FINISHED,
    STOPPED,
    TRACKER_REGISTRY,
    NamedImage,
    RunInfo,
    Tracker,
    require_package,
)
from slowfast.errors import ConfigError
from slowfast.utils.text import plain

STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
MAX_VALUE = 500  # characters per parameter, the limit of older servers
DATABASES = ("sqlite:", "mysql", "postgresql", "mssql")  # schemes of addresses
_NOT_IN_FILES = re.compile(r"[^\w. -]")
BATCH = 100  # parameters per request, the limit of servers
# mlflow-skinny has no database, and the folder store must be allowed since MLflow 3.7. If the
# server is down, calls fail after seconds instead of minutes. MLflow sends usage statistics unless that is disabled.
ENVIRONMENT = {
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@TRACKER_REGISTRY.register(name="mlflow")
class MLflow(Tracker):
    """Run of MLflow: parameters, metrics, and config.yaml and images as artifacts.

    A resumed run keeps its parameters, which MLflow does not allow to change; config.yaml is the latest.

    Args:
        run: Description of the run.
        uri: Tracking server or folder.
    """

    def __init__(self, run: RunInfo, uri: str) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self._param = Metric, Param
        self._client: Any = MlflowClient(tracking_uri=uri)
        self._id, known = self._resume(run.run_id) or (self._create(run), set())
        new = (self._param(key, str(value)[:MAX_VALUE]) for key, value in run.config.items() if key not in known)
        while part := list(islice(new, BATCH)):
            self._client.log_batch(self._id, params=part)
        self._client.log_text(self._id, run.config_text, "config.yaml")

    @classmethod
    def check(cls, cfg: ConfigNode) -> None:
        """Check that MLflow is installed, with what the store needs."""
        require_package("mlflow", "mlflow", "mlflow")
        if _uri(cfg).startswith(DATABASES) and find_spec("sqlalchemy") is None:
            raise ConfigError(
                f"MLFLOW.TRACKING_URI {plain(_uri(cfg))}: mlflow-skinny supports no databases. Use a server or a "
                "folder, or install the package mlflow"
            )

    @classmethod
    def from_config(cls, cfg: ConfigNode, run: RunInfo) -> MLflow:
        """Build for MLFLOW.TRACKING_URI, the environment variable of this name, or the folder mlruns in OUTPUT_DIR."""
        uri = _uri(cfg)
        return cls(run, uri if ":" in uri else Path(uri or run.folder / "mlruns").resolve().as_uri())

    def _create(self, run: RunInfo) -> str:
        experiment = self._client.get_experiment_by_name(run.project)
        number = self._client.create_experiment(run.project) if experiment is None else experiment.experiment_id
        return str(self._client.create_run(number, run_name=run.name).info.run_id)

    def _resume(self, run_id: str) -> tuple[str, set[str]] | None:
        """Set a run to running and return it with the names of its parameters; None if there is no such run."""
        from mlflow.exceptions import MlflowException

        if not run_id:
            return None
        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None  # deleted, or on another server
        if found.info.lifecycle_stage != "active":
            return None
        self._client.update_run(run_id, status="RUNNING")
        return run_id, set(found.data.params)

    @property
    def run_id(self) -> str:
        return self._id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._id, metrics=[self._metric(tag, value, now, step) for tag, value in values.items()])

    def images(self, tag: str, images: Sequence[NamedImage], step: int) -> None:
        for number, one in enumerate(images, 1):
            name = _NOT_IN_FILES.sub("_", one.name)[-80:]
            file = f"{tag}.png" if len(images) == 1 else f"{tag}/{number:03d} {name}.png"
            self._client.log_image(self._id, one.image, artifact_file=file)

    def close(self, outcome: str) -> None:
        self._client.set_terminated(self._id, STATUS[outcome])


def _uri(cfg: ConfigNode) -> str:
    return str(cfg.MLFLOW.TRACKING_URI or os.environ.get("MLFLOW_TRACKING_URI", ""))
