"""Weights that training starts from, and weights to test."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine import checkpoint
from slowfast.engine.run_state import RunState
from slowfast.errors import CheckpointError, ConfigError
from slowfast.models.published import StateDict, read_file, read_weights, weights_of
from slowfast.models.weights import AdaptsWeights, load_weights
from slowfast.runtime.logging import get_logger


def load_start_weights(cfg: ConfigNode, model: nn.Module, state: RunState) -> None:
    """Load TRAIN.CHECKPOINT_FILE_PATH, else MORPH.PRETRAIN_PATH, else keep the random weights.

    A checkpoint of this project's training is resumed, epoch and optimizer included, unless
    TRAIN.CHECKPOINT_EPOCH_RESET. Of any other file the weights are loaded, the raw ones where it also holds averaged
    ones, and adapted where the network can.

    Raises:
        CheckpointError: If the file is missing, damaged, unsafe or of another network.
    """
    if not cfg.TRAIN.CHECKPOINT_FILE_PATH:
        _load_pretrained(cfg, model)
        return
    path, kind = Path(cfg.TRAIN.CHECKPOINT_FILE_PATH), cfg.TRAIN.CHECKPOINT_TYPE
    content = read_file(path, kind)
    packed = checkpoint.training_state(content) if kind == "pytorch" else None
    if packed is not None and not cfg.TRAIN.CHECKPOINT_EPOCH_RESET:
        if packed["epoch"] >= cfg.SOLVER.MAX_EPOCH:
            raise CheckpointError(
                f"{path} has {packed['epoch']} epochs, all of SOLVER.MAX_EPOCH {cfg.SOLVER.MAX_EPOCH}: set "
                "TRAIN.CHECKPOINT_EPOCH_RESET True to start anew from its weights, or more epochs to go on"
            )
        state.unpack(packed, path)
        get_logger().info(f"going on from {path}, epoch {state.at.epoch + 1}")
        return
    weights = weights_of(content, path, kind, model)
    if isinstance(model, AdaptsWeights):
        weights = model.adapt_start_weights(weights, path)
    load_weights(model, weights, path, allow_new_head=True)


@runtime_checkable
class TakesPretrained(Protocol):
    """A network whose published pre-trained weights are not in its own layout."""

    def adapt_pretrained(self, state: StateDict) -> StateDict:
        """The state dict of this network that the pre-trained weights amount to."""


def _load_pretrained(cfg: ConfigNode, model: nn.Module) -> None:
    path = Path(cfg.MORPH.PRETRAIN_PATH)
    if not cfg.MORPH.PRETRAIN_PATH:
        if cfg.MODEL.FREEZE_BACKBONE:
            get_logger().warning(
                "MODEL.FREEZE_BACKBONE keeps random weights as they are; TRAIN.CHECKPOINT_FILE_PATH names trained ones"
            )
        return
    if not isinstance(model, TakesPretrained):
        raise ConfigError(f"MORPH.PRETRAIN_PATH is set, but {cfg.MODEL.MODEL_NAME} takes no such weights: empty it")
    state = model.adapt_pretrained(read_weights(path, "pytorch", model))
    load_weights(model, state, path, allow_new_head=True)
    get_logger().info(f"starting from the weights in {path}")


def load_test_checkpoint(cfg: ConfigNode, model: nn.Module) -> None:
    """Load TEST.CHECKPOINT_FILE_PATH, else the last checkpoint in OUTPUT_DIR, else warn that the weights are random.

    TEST.CHECKPOINT_WEIGHTS chooses between the raw and the averaged weights of a file that holds both. A damaged
    checkpoint in OUTPUT_DIR is skipped with a warning.

    Raises:
        CheckpointError: If the given file, or every checkpoint in OUTPUT_DIR, cannot be used.
    """
    found = _read_given(cfg) if cfg.TEST.CHECKPOINT_FILE_PATH else checkpoint.read_last(cfg.OUTPUT_DIR)
    if found is None:
        get_logger().warning(
            f"testing random weights: there is no checkpoint in {cfg.OUTPUT_DIR}; TEST.CHECKPOINT_FILE_PATH names one"
        )
        return
    path, content = found
    kind = cfg.TEST.CHECKPOINT_TYPE if cfg.TEST.CHECKPOINT_FILE_PATH else "pytorch"
    load_weights(model, weights_of(content, path, kind, model, cfg.TEST.CHECKPOINT_WEIGHTS), path)
    get_logger().info(f"testing {path}")


def _read_given(cfg: ConfigNode) -> tuple[Path, Any]:
    path = Path(cfg.TEST.CHECKPOINT_FILE_PATH)
    return path, read_file(path, cfg.TEST.CHECKPOINT_TYPE)
