"""Alias of :func:`slowfast.engine.state.load_test_checkpoint` for scripts that import it from PySlowFast's location."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from yacs.config import CfgNode


def load_test_checkpoint(cfg: CfgNode, model: nn.Module) -> None:
    """Load the weights to test; see :func:`slowfast.engine.state.load_test_checkpoint`.

    Args:
        cfg: Config of the test.
        model: Model to load them into.
    """
    # By name: the engine is a package above this one.
    import_module("slowfast.engine.state").load_test_checkpoint(cfg, model)
