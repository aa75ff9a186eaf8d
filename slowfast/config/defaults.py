"""Default config tree and checks of its values.

The keys are declared in slowfast/config/keys, each with its default, meaning, unit and rule; docs/CONFIG.md lists them.
"""

from __future__ import annotations

from typing import Any

from slowfast.config.keys import KEYS, SECTIONS
from slowfast.config.node import ConfigNode
from slowfast.config.rules import Choices, RegistryNames


def get_cfg() -> ConfigNode:
    """Return a mutable copy of the default config tree."""
    tree = ConfigNode()
    for section in SECTIONS:
        node = tree
        if section.name:
            node = tree[section.name] = ConfigNode()
        for name, key in section.keys.items():
            node[name] = key.new_default()
    return tree


def choices(key: str) -> tuple[str | int, ...]:
    """Return the allowed values of a key; empty if they are not a finite set."""
    rule = KEYS[key].rule
    return rule.values if isinstance(rule, Choices | RegistryNames) else ()


def check_value(key: str, value: Any) -> None:
    """Check an argument that has the rule of a key.

    Raises:
        ConfigError: If the value is not allowed.
    """
    KEYS[key].check(key, value)


def check_values(cfg: ConfigNode) -> None:
    """Check each value against the rule of its key, except for names in registries.

    Raises:
        ConfigError: For the first value that is not allowed.
    """
    _check(cfg, registered=False)


def check_registered_names(cfg: ConfigNode) -> None:
    """Check all names in registries, whose modules are imported.

    Raises:
        ConfigError: For the first name that is not registered.
    """
    _check(cfg, registered=True)


def _check(cfg: ConfigNode, registered: bool) -> None:
    for name, value in cfg.keys_by_path():
        key = KEYS[name]
        if isinstance(key.rule, RegistryNames) is registered:
            key.check(name, value)
