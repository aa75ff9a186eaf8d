"""Everything that a run needs to go on as if it had never stopped, and its checkpoints.

Random numbers are no part of it: each step draws from RNG_SEED, the epoch and the step alone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine import checkpoint
from slowfast.engine.ema import WeightAverage
from slowfast.errors import CheckpointError
from slowfast.runtime.logging import get_logger


@dataclass
class Position:
    """How far a run is: finished epochs, steps of the next one, and the best validation so far (top-1 in %)."""

    epoch: int = 0
    step: int = 0
    best_top1: float = -1.0
    best_epoch: int = 0

    def total(self, steps: int) -> int:
        """Steps since the start of training, with `steps` an epoch."""
        return self.epoch * steps + self.step


class RunState:
    """The parts of a run that change: weights, optimizer, loss scale, average, position."""

    def __init__(
        self,
        cfg: ConfigNode,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        ema: WeightAverage | None,
        steps: int,
    ) -> None:
        self.cfg, self.steps = cfg, steps
        self.model, self.optimizer, self.scaler, self.ema = model, optimizer, scaler, ema
        self.at = Position()

    def weights(self) -> checkpoint.State:
        """What testing needs."""
        state: checkpoint.State = {"model_state": self.model.state_dict()}
        if self.ema is not None:
            state["ema_state"] = self.ema.model.state_dict()
        return state | {"cfg": self.cfg.dump()}

    def pack(self) -> checkpoint.State:
        """The whole state: tensors and plain values only."""
        return self.weights() | {
            "optimizer_state": self.optimizer.state_dict(),
            "scaler_state": self.scaler.state_dict(),
            "steps_an_epoch": self.steps,
            **asdict(self.at),
        }

    def unpack(self, state: checkpoint.State, path: Path) -> None:
        """Resume from a packed state.

        Raises:
            CheckpointError: If it belongs to another network, optimizer or dataset.
        """
        if state["step"] and state.get("steps_an_epoch") != self.steps:
            raise CheckpointError(
                f"{path} was written in the middle of an epoch of {state.get('steps_an_epoch')} steps, an epoch now "
                f"has {self.steps}: restore the index or TRAIN.BATCH_SIZE, or start anew in another OUTPUT_DIR"
            )
        if (self.ema is not None) != ("ema_state" in state):
            raise CheckpointError(f"{path} was written with MODEL.EMA {not self.cfg.MODEL.EMA}; set it so to go on")
        try:
            at = Position(state["epoch"], state["step"], state["best_top1"], state["best_epoch"])
            self.model.load_state_dict(state["model_state"])
            self._load_optimizer(state["optimizer_state"], yaml.safe_load(state["cfg"])["SOLVER"]["OPTIMIZING_METHOD"])
            if self.ema is not None:
                self.ema.model.load_state_dict(state["ema_state"])
            if state["scaler_state"]:
                self.scaler.load_state_dict(state["scaler_state"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{path} belongs to another network or optimizer ({reason}); to start anew choose another OUTPUT_DIR, "
                "to take only its weights set TRAIN.CHECKPOINT_FILE_PATH to it and TRAIN.CHECKPOINT_EPOCH_RESET True"
            ) from error
        for name, value in asdict(at).items():  # the position is shared: it stays the same object
            setattr(self.at, name, value)

    def _load_optimizer(self, state: checkpoint.State, method: str) -> None:
        """Its state; how it is set is as the config says. ValueError for that of another kind of optimizer."""
        if method != self.cfg.SOLVER.OPTIMIZING_METHOD:
            raise ValueError(f"SOLVER.OPTIMIZING_METHOD was {method}")
        own = [{key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state)
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)

    def resume(self, output_dir: Path) -> bool:
        """Resume from the furthest undamaged checkpoint in OUTPUT_DIR; False if there is none at all.

        Raises:
            CheckpointError: If all are damaged, or it belongs to another network or dataset.
        """
        found = checkpoint.read_last(output_dir)
        if found is None:
            return False
        path, packed = found
        self.unpack(packed, path)
        get_logger().info(f"going on from {path}: epoch {self.at.epoch + 1}, step {self.at.step} of {self.steps}")
        return True

    def path(self, output_dir: Path) -> Path:
        """Where the state is saved now."""
        return checkpoint.checkpoint_folder(output_dir) / checkpoint.checkpoint_name(self.at.epoch, self.at.step)

    @staticmethod
    def best_path(output_dir: Path) -> Path:
        """Where the best weights are kept."""
        return checkpoint.checkpoint_folder(output_dir) / checkpoint.BEST
