"""Merging of defaults, config file and overrides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slowfast.config.defaults import get_cfg
from slowfast.config.node import ConfigNode
from slowfast.config.shipped import find_config


def merge_config(cfg_file: str | Path, overrides: Sequence[Any] = ()) -> ConfigNode:
    """Merge the config of a run, without validating or freezing it.

    Defaults come first, then the file after its `_BASE_` chain, the overrides, and the settings that follow from them.

    Args:
        cfg_file: YAML file, or name of a shipped config.
        overrides: KEY VALUE pairs.

    Raises:
        ConfigError: For a file that cannot be read, an unknown key or a value of the wrong type.
    """
    cfg = get_cfg()
    cfg.merge_from_file(find_config(cfg_file))
    cfg.merge_from_list(overrides)
    cfg.merge_from_list(_implied_on_videos(cfg))
    return cfg


def on_videos(cfg: ConfigNode) -> bool:
    """Return True for event-driven inference on the videos of DATA.PATH_PREFIX."""
    return bool(cfg.EVENT.ENABLE and not cfg.MODEL.FRAMEWISE)


def _implied_on_videos(cfg: ConfigNode) -> list[Any]:
    """Return the overrides for event-driven inference on videos: no training, one process."""
    if not on_videos(cfg):
        return []
    return ["TRAIN.ENABLE", False, "TEST.ENABLE", True, "NUM_GPUS", min(cfg.NUM_GPUS, 1)]
