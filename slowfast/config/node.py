"""The config tree: yacs's node with files that build on others, published keys, and errors that help.

yacs's own merging reads `2e-4` as text, takes Python files, and answers a typo with a bare KeyError.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from slowfast.config import published_keys
from slowfast.config.nearest import nearest_key
from slowfast.config.setting import Setting, coerce
from slowfast.config.yaml_file import read_settings
from slowfast.errors import ConfigError
from slowfast.runtime.text import redact

_LOG = logging.getLogger(__name__)
_KEY_EQUALS_VALUE = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


class ConfigNode(CfgNode):
    """A tree of typed keys. Values are replaced by merging; the type of the default holds."""

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        """Merge a YAML file and, before it, the file it names under `_BASE_`.

        Raises ConfigError (file and line) for anything wrong in it; nothing is merged then.
        """
        self._merge(read_settings(Path(cfg_filename), self._is_section), str(cfg_filename))

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge overrides: KEY VALUE pairs as the command line gives them, or KEY=VALUE; values may be Python's.

        Raises ConfigError for anything wrong in them; nothing is merged then.
        """
        self._merge(_pairs(cfg_list), "overrides")

    def dump(self, **options: Any) -> str:
        """Write the tree as YAML, with secrets in addresses hidden; everything else can be loaded again."""
        return str(CfgNode.dump(_without_secrets(self), **options))

    def keys_by_path(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Every key in dotted form and its value."""
        for name, value in self.items():
            if isinstance(value, ConfigNode):
                yield from value.keys_by_path(f"{prefix}{name}.")
            else:
                yield prefix + name, value

    def _merge(self, settings: list[Setting], source: str) -> None:
        translated = published_keys.translate(settings, lambda key: self._find(key) is not None)
        values = [(setting.key, self._value_of(setting)) for setting in translated.settings]
        for key, value in values:
            section, _, leaf = key.rpartition(".")
            setattr(self._find(section) if section else self, leaf, value)
        if translated.warning():
            _LOG.warning("%s: %s", source, translated.warning())

    def _value_of(self, setting: Setting) -> Any:
        default = self._find(setting.key)
        if default is None:
            known = dict(self.keys_by_path())
            raise ConfigError(
                f"{setting.where}: unknown key {setting.key}; the nearest is {nearest_key(setting.key, known)}"
            )
        if isinstance(default, ConfigNode):
            raise setting.error(f"is a section, not a key; its keys are {', '.join(default)}")
        return coerce(setting, default)

    def _find(self, key: str) -> Any:
        """The value or section under a dotted key; None where there is none (no key's value is None)."""
        here: Any = self
        for name in key.split("."):
            if not isinstance(here, ConfigNode) or name not in here:
                return None
            here = here[name]
        return here

    def _is_section(self, key: str) -> bool:
        return isinstance(self._find(key), ConfigNode)


def _without_secrets(node: ConfigNode) -> ConfigNode:
    """Copy a tree; passwords and tokens in its addresses are replaced by ``***``."""
    copy = node.clone()
    copy.defrost()
    for key, value in copy.keys_by_path():
        section, _, leaf = key.rpartition(".")
        here = copy._find(section) if section else copy
        if isinstance(value, str):
            here[leaf] = redact(value)
        elif isinstance(value, (list, tuple)):
            here[leaf] = type(value)(redact(item) if isinstance(item, str) else item for item in value)
    return copy


def _pairs(tokens: Sequence[Any]) -> list[Setting]:
    """KEY VALUE KEY=VALUE ... -> settings."""
    settings: list[Setting] = []
    rest = iter(tokens)
    for token in rest:
        joined = _KEY_EQUALS_VALUE.fullmatch(token) if isinstance(token, str) else None
        if joined:
            settings.append(Setting(joined[1], joined[2], "overrides"))
            continue
        if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", token):
            before = settings[-1] if settings else None
            if before is not None and isinstance(before.raw, str) and before.raw.startswith("["):
                raise ConfigError(
                    f"overrides: {before.key}: the list {before.raw} is not closed; write it without spaces"
                )
            raise ConfigError(f"overrides: expected a key such as TRAIN.ENABLE, got {token!r}")
        try:
            value = next(rest)
        except StopIteration:
            raise ConfigError(
                f"overrides: {token} has no value; overrides are pairs: TEST.NUM_ENSEMBLE_VIEWS 4"
            ) from None
        settings.append(Setting(token, value, "overrides"))
    return settings
