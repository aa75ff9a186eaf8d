"""Default config tree, and the check of its values.

The keys are declared in slowfast/config/keys, each with its default, meaning, unit and rule; docs/CONFIG.md lists them.
"""

from __future__ import annotations

from slowfast.config.keys import KEYS, SECTIONS
from slowfast.config.node import ConfigNode
from slowfast.config.rules import Choices, RegistryNames


def get_cfg() -> ConfigNode:
    """Return the whole tree with its defaults, as a fresh mutable copy."""
    tree = ConfigNode()
    for section in SECTIONS:
        node = tree
        if section.name:
            node = tree[section.name] = ConfigNode()
        for name, key in section.keys.items():
            node[name] = key.new_default()
    return tree


def choices(key: str) -> tuple[str | int, ...]:
    """Return the values that a key may have, () if they are not a set of names or numbers."""
    rule = KEYS[key].rule
    return rule.values if isinstance(rule, Choices | RegistryNames) else ()


def check_values(cfg: ConfigNode) -> None:
    """Raise ConfigError for the first key whose value alone is wrong; names in registries are not looked up."""
    _check(cfg, registered=False)


def check_registered_names(cfg: ConfigNode) -> None:
    """Raise ConfigError for the first key whose value is not registered; imports the modules of the registries."""
    _check(cfg, registered=True)


def _check(cfg: ConfigNode, registered: bool) -> None:
    for name, value in cfg.keys_by_path():
        key = KEYS[name]
        if isinstance(key.rule, RegistryNames) is registered:
            key.check(name, value)
