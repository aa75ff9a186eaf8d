"""Merge, override, validate, freeze: the only way a run gets its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slowfast.config.merge import merge_config
from slowfast.config.node import ConfigNode
from slowfast.config.validate import validate


def load_config(cfg_file: str | Path, overrides: Sequence[Any] = (), world_size: int = 1) -> ConfigNode:
    """Return the frozen config of a run: defaults, then the file (and its `_BASE_`), the overrides, what these imply.

    Args:
        cfg_file: A YAML file.
        overrides: KEY VALUE pairs.
        world_size: Number of processes that share a training batch.

    Raises:
        ConfigError: For every mistake that can be known from the config.
    """
    cfg = merge_config(cfg_file, overrides)
    validate(cfg, world_size)
    cfg.freeze()
    return cfg
