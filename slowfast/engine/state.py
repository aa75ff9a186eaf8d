"""State of a training run: checkpoint content, resuming, and loading of initial and tested weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine import checkpoints
from slowfast.engine.averaging import ModelEMA
from slowfast.engine.forward import use_channels_last
from slowfast.engine.optim import load_optimizer_state
from slowfast.errors import CheckpointError, ConfigError
from slowfast.models.build import build_model
from slowfast.models.protocol import LoadedWeights, Network
from slowfast.models.weights import load_weights, read_file, read_weights, weights_of
from slowfast.utils.checkpoint_files.read import SUFFIX, read_metadata
from slowfast.utils.logging import get_logger
from slowfast.utils.machine import keep_freed_memory
from slowfast.utils.paths import local_path
from slowfast.utils.remote.cache import sha256_of
from slowfast.utils.text import redact
from slowfast.utils.text_files import from_json

BEST = "best"  # value of TEST.CHECKPOINT
CLASS_NAMES = "class_names"  # key in checkpoints and in the metadata of exported weights


@dataclass
class Position:
    """Progress of a run.

    Attributes:
        epoch: Finished epochs.
        step: Finished steps of the next epoch.
        best_metric: Best value so far of the metric that selects checkpoints; None before a validation.
        best_epoch: Epoch of that value, from 1; 0 before a validation.
    """

    epoch: int = 0
    step: int = 0
    best_metric: float | None = None
    best_epoch: int = 0

    def total(self, steps: int) -> int:
        """Steps since the start of training, with `steps` per epoch."""
        return self.epoch * steps + self.step


class RunState:
    """Mutable state of a training run.

    Args:
        cfg: Config of the run.
        model: The model, not wrapped for data-parallel training.
        optimizer: Its optimizer.
        scaler: Gradient scaler of mixed precision.
        ema: Average of the weights, if any.
        steps: Steps per epoch.
        class_names: Names of all classes, for use of the checkpoints without the dataset; None for none.
    """

    def __init__(
        self,
        cfg: ConfigNode,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        ema: ModelEMA | None,
        steps: int,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self.cfg, self.steps = cfg, steps
        self.model, self.optimizer, self.scaler, self.ema = model, optimizer, scaler, ema
        self.class_names = class_names
        self.at = Position()

    def weights(self) -> checkpoints.State:
        """Return the part that testing needs: weights, config and class names."""
        state: checkpoints.State = {"model_state": self.model.state_dict()}
        if self.ema is not None:
            state["ema_state"] = self.ema.model.state_dict()
        names = {} if self.class_names is None else {CLASS_NAMES: list(self.class_names)}
        return state | {"cfg": self.cfg.dump()} | names

    def pack(self) -> checkpoints.State:
        """Return the full state, made of tensors and plain values only."""
        return self.weights() | {
            "optimizer_state": self.optimizer.state_dict(),
            "scaler_state": self.scaler.state_dict(),
            "steps_an_epoch": self.steps,
            **asdict(self.at),
        }

    def pack_best(self) -> checkpoints.State:
        """Return the content of the best checkpoint, at a validation that has just set `at.best_epoch`."""
        return self.weights() | {"best_metric": self.at.best_metric, "best_epoch": self.at.best_epoch}

    def unpack(self, state: checkpoints.State, path: str | Path) -> None:
        """Restore the state from a checkpoint.

        Args:
            state: Result of `pack`.
            path: File it was read from, for messages.

        Raises:
            CheckpointError: If it belongs to another network, optimizer or dataset.
        """
        if state["step"] and state.get("steps_an_epoch") != self.steps:
            raise CheckpointError(
                f"{path} was written within an epoch of {state.get('steps_an_epoch')} steps, but an epoch now has "
                f"{self.steps}. Restore the index files and TRAIN.BATCH_SIZE, or start over in another OUTPUT_DIR"
            )
        if (self.ema is not None) != ("ema_state" in state):
            raise CheckpointError(f"{path} was written with MODEL.EMA {not self.cfg.MODEL.EMA}. Set it so to resume")
        try:
            at = _position(state)
            self.model.load_state_dict(state["model_state"])
            self._load_optimizer(state)
            if self.ema is not None:
                self.ema.model.load_state_dict(state["ema_state"])
            if state["scaler_state"]:
                self.scaler.load_state_dict(state["scaler_state"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise CheckpointError(
                f"{path} belongs to another network or optimizer ({reason}). To start over, choose another OUTPUT_DIR; "
                "to use only its weights, set TRAIN.CHECKPOINT_FILE_PATH to it and TRAIN.CHECKPOINT_EPOCH_RESET True"
            ) from error
        for name, value in asdict(at).items():  # update in place: the object is shared
            setattr(self.at, name, value)

    def _load_optimizer(self, state: checkpoints.State) -> None:
        """Load the optimizer's state. Raises ValueError if it belongs to another optimizer or other parameters."""
        method = yaml.safe_load(state["cfg"])["SOLVER"]["OPTIMIZING_METHOD"]
        if method != self.cfg.SOLVER.OPTIMIZING_METHOD:
            raise ValueError(f"SOLVER.OPTIMIZING_METHOD was {method}")
        load_optimizer_state(self.optimizer, state["optimizer_state"], self.cfg, self.model)

    def resume(self, output_dir: Path) -> bool:
        """Resume from the latest undamaged checkpoint in OUTPUT_DIR; return False if there are no checkpoints.

        Raises:
            CheckpointError: If all are damaged, or the checkpoint belongs to another network or dataset.
        """
        found = checkpoints.read_last(output_dir)
        if found is None:
            return False
        path, packed = found
        self.unpack(packed, path)
        get_logger().info(f"Resuming from {path}: epoch {self.at.epoch + 1}, step {self.at.step} of {self.steps}")
        return True

    def path(self, output_dir: Path) -> Path:
        """Return the path of a checkpoint at the current position."""
        return checkpoints.checkpoint_folder(output_dir) / checkpoints.checkpoint_name(self.at.epoch, self.at.step)

    @staticmethod
    def best_path(output_dir: Path) -> Path:
        """Return the path of the best weights."""
        return checkpoints.checkpoint_folder(output_dir) / checkpoints.BEST


def load_start_weights(cfg: ConfigNode, model: nn.Module, state: RunState) -> None:
    """Load TRAIN.CHECKPOINT_FILE_PATH, else MORPH.PRETRAIN_PATH, else keep the random weights.

    A training checkpoint of this project is resumed, including epoch and optimizer, unless
    TRAIN.CHECKPOINT_EPOCH_RESET is set. From any other file the weights are loaded (the raw ones if it also holds an
    EMA) and adapted to the network if it supports that.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe or of another network.
    """
    if not cfg.TRAIN.CHECKPOINT_FILE_PATH:
        _load_pretrained(cfg, model)
        return
    path, kind = redact(cfg.TRAIN.CHECKPOINT_FILE_PATH), cfg.TRAIN.CHECKPOINT_TYPE
    content = read_file(cfg.TRAIN.CHECKPOINT_FILE_PATH, kind)
    packed = checkpoints.training_state(content) if kind == "pytorch" else None
    if packed is not None and not cfg.TRAIN.CHECKPOINT_EPOCH_RESET:
        if packed["epoch"] >= cfg.SOLVER.MAX_EPOCH:
            raise CheckpointError(
                f"{path}: training is complete after {packed['epoch']} epochs (SOLVER.MAX_EPOCH "
                f"{cfg.SOLVER.MAX_EPOCH}). Increase SOLVER.MAX_EPOCH to resume, or set TRAIN.CHECKPOINT_EPOCH_RESET "
                "True to start over from its weights"
            )
        state.unpack(packed, path)
        get_logger().info(f"Resuming from {path}: epoch {state.at.epoch + 1}")
        return
    weights = weights_of(content, path, kind, model)
    if isinstance(model, Network):
        weights = model.adapt_start_weights(weights, path)
    load_weights(model, weights, path, allow_new_head=True)


def _position(state: checkpoints.State) -> Position:
    """Return the progress of a packed state; checkpoints of version 1.1 and before have `best_top1`."""
    best = state["best_metric"] if "best_metric" in state else state["best_top1"]
    return Position(state["epoch"], state["step"], best, state["best_epoch"])


def _load_pretrained(cfg: ConfigNode, model: nn.Module) -> None:
    path = redact(cfg.MORPH.PRETRAIN_PATH)
    if not cfg.MORPH.PRETRAIN_PATH:
        if cfg.MODEL.FREEZE_BACKBONE or cfg.MODEL.FREEZE:
            key = "FREEZE_BACKBONE" if cfg.MODEL.FREEZE_BACKBONE else "FREEZE"
            get_logger().warning(
                f"MODEL.{key} freezes random weights. Set TRAIN.CHECKPOINT_FILE_PATH to start from trained ones"
            )
        return
    if not (isinstance(model, Network) and model.takes_pretrain_path):
        raise ConfigError(
            f"MORPH.PRETRAIN_PATH is set, but {cfg.MODEL.MODEL_NAME} has no use for it. Set it to an empty string"
        )
    state = model.adapt_pretrained(read_weights(cfg.MORPH.PRETRAIN_PATH, "pytorch", model))
    load_weights(model, state, path, allow_new_head=True)
    get_logger().info(f"Starting from the weights in {path}")


def load_test_checkpoint(cfg: ConfigNode, model: nn.Module) -> None:
    """Load TEST.CHECKPOINT_FILE_PATH, else the checkpoint in OUTPUT_DIR that TEST.CHECKPOINT selects.

    Without a last checkpoint there, the weights stay random, with a warning. TEST.CHECKPOINT_WEIGHTS selects raw
    weights or their EMA in a file that holds both. Damaged last checkpoints are skipped with a warning. A network
    remembers the checkpoint, see `Network.loaded`.

    Raises:
        CheckpointError: If the given file, the best or all checkpoints in OUTPUT_DIR are unusable.
    """
    given = bool(cfg.TEST.CHECKPOINT_FILE_PATH)
    found: tuple[str | Path, Any] | None
    if given or cfg.TEST.CHECKPOINT == BEST:
        found = _read_given(cfg) if given else _read_best(cfg)
    else:
        found = checkpoints.read_last(cfg.OUTPUT_DIR)
    if found is None:
        get_logger().warning(
            f"No checkpoint in {cfg.OUTPUT_DIR}: testing random weights. Set TEST.CHECKPOINT_FILE_PATH to test others"
        )
        return
    path, content = found
    kind = cfg.TEST.CHECKPOINT_TYPE if given else "pytorch"
    load_weights(model, weights_of(content, path, kind, model, cfg.TEST.CHECKPOINT_WEIGHTS), path)
    loaded = _loaded(cfg, str(path), content)
    if isinstance(model, Network):
        model.loaded = loaded
    get_logger().info(f"Testing the weights in {path}{loaded.note}")


def _loaded(cfg: ConfigNode, path: str, content: Any) -> LoadedWeights:
    """Return the description of the checkpoint to test, based on its content."""
    names = _class_names(cfg, content)
    if cfg.TEST.CHECKPOINT_FILE_PATH:
        return LoadedWeights(path, class_names=names)
    choice = cfg.TEST.CHECKPOINT
    # Older best checkpoints do not name their epoch.
    return LoadedWeights(path, choice, content.get("best_epoch" if choice == BEST else "epoch"), names)


def _class_names(cfg: ConfigNode, content: Any) -> tuple[str, ...] | None:
    """Return the class names in a checkpoint; None if it has none for MODEL.NUM_CLASSES classes."""
    found = content.get(CLASS_NAMES) if isinstance(content, Mapping) else None
    path = local_path(cfg.TEST.CHECKPOINT_FILE_PATH) if cfg.TEST.CHECKPOINT_FILE_PATH else None
    if found is None and path is not None and path.suffix == SUFFIX:
        found = _listed(read_metadata(path).get(CLASS_NAMES, ""))
    if not isinstance(found, list) or len(found) != cfg.MODEL.NUM_CLASSES:
        return None
    return tuple(found) if all(isinstance(name, str) for name in found) else None


def _listed(text: str) -> Any:
    """Parse JSON; return None for anything else."""
    try:
        return from_json(text)
    except (ValueError, RecursionError):
        return None


def network_to_test(cfg: ConfigNode, device: torch.device) -> Network:
    """Build the model with the weights of `load_test_checkpoint`, on the device and in evaluation mode.

    From then on, the process keeps freed memory for the next batches; see `keep_freed_memory`.
    """
    keep_freed_memory()
    torch.manual_seed(cfg.RNG_SEED)  # makes random weights reproducible if there is no checkpoint
    model = build_model(cfg).to(device)
    load_test_checkpoint(cfg, model)
    if cfg.MODEL.CHANNELS_LAST:
        use_channels_last(model)
    return model.eval()


def tested_weights(cfg: ConfigNode) -> str | None:
    """Return the file or address whose weights `load_test_checkpoint` has loaded; None if the weights are random."""
    if not cfg.TEST.CHECKPOINT_FILE_PATH and cfg.TEST.CHECKPOINT == BEST:
        return str(RunState.best_path(Path(cfg.OUTPUT_DIR)))
    found = cfg.TEST.CHECKPOINT_FILE_PATH or checkpoints.find_last(cfg.OUTPUT_DIR)
    return redact(str(found)) if found else None


def sha256_of_tested(cfg: ConfigNode, loaded: LoadedWeights) -> str:
    """Return the SHA-256 of the file that `load_test_checkpoint` has loaded, in hexadecimal digits."""
    # `loaded.path` is without the credentials that an address may need.
    return sha256_of(local_path(cfg.TEST.CHECKPOINT_FILE_PATH or loaded.path))


def _read_best(cfg: ConfigNode) -> tuple[Path, Any]:
    path = RunState.best_path(Path(cfg.OUTPUT_DIR))
    if not path.is_file():
        raise CheckpointError(
            f"TEST.CHECKPOINT {BEST}: {path} does not exist. Set TEST.CHECKPOINT last, or TEST.CHECKPOINT_FILE_PATH"
        )
    return path, read_file(path, "pytorch")


def _read_given(cfg: ConfigNode) -> tuple[str, Any]:
    path = cfg.TEST.CHECKPOINT_FILE_PATH
    return redact(path), read_file(path, cfg.TEST.CHECKPOINT_TYPE)
