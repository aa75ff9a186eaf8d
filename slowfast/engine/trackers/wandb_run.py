"""Weights & Biases runs, online or offline."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from slowfast.config.node import ConfigNode
from slowfast.engine.trackers.base import FINISHED, TRACKER_REGISTRY, NamedImage, RunInfo, Tracker, require_package

# Seconds to wait for the server at the start and at the end of a run; data not sent by then is kept in OUTPUT_DIR.
START_TIMEOUT, END_TIMEOUT = 30.0, 120.0


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
