"""Weights for testing, as scripts import it: `load_test_checkpoint(cfg, model)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from slowfast.config.node import ConfigNode
from slowfast.engine.checkpoint import read_last
from slowfast.models.published import read_file, weights_of
from slowfast.models.weights import load_weights
from slowfast.runtime.logging import get_logger

__all__ = ["load_test_checkpoint"]


def load_test_checkpoint(cfg: ConfigNode, model: nn.Module) -> None:
    """Load TEST.CHECKPOINT_FILE_PATH, else the last checkpoint in OUTPUT_DIR, else warn that the weights are random.

    TEST.CHECKPOINT_WEIGHTS chooses between the raw and the averaged weights of a file that holds both. A damaged
    checkpoint in OUTPUT_DIR is skipped with a warning.

    Raises:
        CheckpointError: If the given file, or every checkpoint in OUTPUT_DIR, cannot be used.
    """
    found = _read_given(cfg) if cfg.TEST.CHECKPOINT_FILE_PATH else read_last(cfg.OUTPUT_DIR)
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
