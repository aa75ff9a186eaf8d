"""Weights for testing, as scripts import it: `load_test_checkpoint(cfg, model)`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.checkpoint import find_last
from slowfast.models.published import read_weights
from slowfast.models.weights import load_weights
from slowfast.runtime.logging import get_logger

__all__ = ["load_test_checkpoint"]


def load_test_checkpoint(cfg: ConfigNode, model: nn.Module) -> None:
    """Load TEST.CHECKPOINT_FILE_PATH, else the last checkpoint in OUTPUT_DIR, else warn that the weights are random.

    With MODEL.EMA the averaged weights of a training checkpoint are taken. Raises CheckpointError.
    """
    given = cfg.TEST.CHECKPOINT_FILE_PATH
    path = Path(given) if given else find_last(cfg.OUTPUT_DIR)
    if path is None:
        get_logger().warning(
            f"testing random weights: there is no checkpoint in {cfg.OUTPUT_DIR}; TEST.CHECKPOINT_FILE_PATH names one"
        )
        return
    state = read_weights(path, cfg.TEST.CHECKPOINT_TYPE if given else "pytorch", model, averaged=cfg.MODEL.EMA)
    load_weights(model, state, path)
    get_logger().info(f"testing {path}")
