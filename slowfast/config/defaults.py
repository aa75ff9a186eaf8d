"""Default config tree, config merging and value checks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slowfast.config.keys import KEYS, SECTIONS
from slowfast.config.node import ConfigNode
from slowfast.config.parse import find_config
from slowfast.config.rules import Choices, RegistryNames


def get_cfg() -> ConfigNode:
    """Return a mutable copy of the default config tree."""
    tree = ConfigNode()
    for section in SECTIONS:
        node = tree
        if section.name:
            node = tree[section.name] = ConfigNode()
        for name, key in section.keys.items():
            node[name] = copy.copy(key.default)  # trees must not share lists
    return tree


def choices(key: str) -> tuple[str | int, ...]:
    """Return the allowed values of a key; empty if there is no finite set."""
    rule = KEYS[key].rule
    return rule.values if isinstance(rule, Choices | RegistryNames) else ()


def check_value(key: str, value: Any) -> None:
    """Check an argument against the rule of a key.

    Raises:
        ConfigError: If the value is not allowed.
    """
    KEYS[key].check(key, value)


def check_values(cfg: ConfigNode) -> None:
    """Check each value against the rule of its key; names in registries only as far as possible without imports.

    Raises:
        ConfigError: For the first value that is not allowed.
    """
    _check(cfg, registered=False)
    for name, value in cfg.keys_by_path():
        rule = KEYS[name].rule
        if isinstance(rule, RegistryNames):
            rule.check_early(name, value)


def check_registered_names(cfg: ConfigNode) -> None:
    """Check all names in registries, importing their modules.

    Raises:
        ConfigError: For the first name that is not registered.
    """
    _check(cfg, registered=True)


def _check(cfg: ConfigNode, registered: bool) -> None:
    for name, value in cfg.keys_by_path():
        key = KEYS[name]
        if isinstance(key.rule, RegistryNames) is registered:
            key.check(name, value)


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
