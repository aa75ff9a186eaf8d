"""Built-in trackers: TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, Literal

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

# Weights & Biases: seconds to wait for the server at the start and at the end of a run; data not sent by then is kept
# in OUTPUT_DIR.
START_TIMEOUT, END_TIMEOUT = 30.0, 120.0

# MLflow
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


@TRACKER_REGISTRY.register(name="tensorboard")
class TensorBoard(Tracker):
    """Event files with curves, hparams, the config as text, and images.

    A resumed run adds a file to the folder that hides the points of the steps to be repeated.

    Args:
        folder: Folder of the event files.
        run: Description of the run.

    Raises:
        ImportError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, run: RunInfo) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise ImportError(
                f'TensorBoard cannot be imported ({error}). Run pip install "slowfast[tensorboard]"'
            ) from error
        _silence_writer_thread()
        self._writer: Any = SummaryWriter(str(folder), purge_step=run.first_step)
        self._end_of_session: Any = None
        self._describe(run)

    @classmethod
    def from_config(cls, cfg: ConfigNode, run: RunInfo) -> TensorBoard:
        """Build for TENSORBOARD.LOG_DIR, by default the folder tensorboard in OUTPUT_DIR."""
        return cls(Path(cfg.TENSORBOARD.LOG_DIR or run.folder / "tensorboard"), run)

    def _describe(self, run: RunInfo) -> None:
        """Write the config, and the hparams with the curves to compare."""
        from torch.utils.tensorboard.summary import hparams

        self._writer.add_text("config", "".join(f"    {line}\n" for line in run.config_text.splitlines()), 0)
        # `add_hparams` would start a second run in a separate folder.
        start, session, self._end_of_session = hparams(dict(run.hparams), dict.fromkeys(run.curves, 0))
        for summary in (start, session):
            self._writer.file_writer.add_summary(summary)
        self._writer.flush()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def images(self, tag: str, images: Sequence[NamedImage], step: int) -> None:
        for number, one in enumerate(images, 1):
            # TensorBoard shows no captions: the tag holds the name.
            name = tag if len(images) == 1 else f"{tag}/{number:03d} {one.name}"
            self._writer.add_image(name, one.image, step, dataformats="HWC")

    def close(self, outcome: str) -> None:
        self._writer.file_writer.add_summary(self._end_of_session)
        self._writer.close()


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


@TRACKER_REGISTRY.register(name="wandb")
class Wandb(Tracker):
    """Run of Weights & Biases.

    Only what this project records is sent: console output, command line, source code, git state and the description
    of the machine, which wandb would collect, are turned off because they may contain passwords and tokens.

    Args:
        run: Description of the run.
        mode: ``online`` or ``offline``.
        entity: Owner of the project; "" for the default of the account.
    """

    def __init__(self, run: RunInfo, mode: Literal["online", "offline"], entity: str = "") -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._wandb: Any = wandb
        options = wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=START_TIMEOUT,
            finish_timeout=END_TIMEOUT,
        )
        self._run: Any = wandb.init(
            id=run.run_id or secrets.token_hex(4),
            resume="allow",
            project=run.project,
            entity=entity or None,
            name=run.name,
            dir=str(run.folder),
            mode=mode,
            config={**run.config, "config_yaml": run.config_text},
            allow_val_change=True,
            settings=options,
        )
        # wandb's own step counts calls and must increase, but resumed runs and tests go back.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    @classmethod
    def check(cls, cfg: ConfigNode) -> None:
        """Check that wandb is installed."""
        require_package("wandb", "wandb", "wandb")

    @classmethod
    def from_config(cls, cfg: ConfigNode, run: RunInfo) -> Wandb:
        """Build from WANDB."""
        offline = os.environ.get("WANDB_MODE") == "offline"
        return cls(run, "offline" if offline else cfg.WANDB.MODE, cfg.WANDB.ENTITY)

    @property
    def run_id(self) -> str:
        return str(self._run.id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def images(self, tag: str, images: Sequence[NamedImage], step: int) -> None:
        logged = [self._wandb.Image(one.image, caption=one.caption or one.name) for one in images]
        self._run.log({tag: logged, "step": step})

    def close(self, outcome: str) -> None:
        self._run.finish(exit_code=0 if outcome == FINISHED else 1)


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
        if _mlflow_uri(cfg).startswith(DATABASES) and find_spec("sqlalchemy") is None:
            raise ConfigError(
                f"MLFLOW.TRACKING_URI {plain(_mlflow_uri(cfg))}: mlflow-skinny supports no databases. Use a server or "
                "a folder, or install the package mlflow"
            )

    @classmethod
    def from_config(cls, cfg: ConfigNode, run: RunInfo) -> MLflow:
        """Build for MLFLOW.TRACKING_URI, the environment variable of this name, or the folder mlruns in OUTPUT_DIR."""
        uri = _mlflow_uri(cfg)
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


def _mlflow_uri(cfg: ConfigNode) -> str:
    return str(cfg.MLFLOW.TRACKING_URI or os.environ.get("MLFLOW_TRACKING_URI", ""))
