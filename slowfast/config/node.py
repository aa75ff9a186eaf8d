"""Config tree: fvcore's CfgNode with typed values, published keys, and errors that name file, line and nearest key.

Merging is reimplemented: fvcore reads `2e-4` as text, may evaluate Python tags (``allow_unsafe``) and raises a bare
KeyError for a typo. Attribute access, freezing, cloning and dumping are inherited.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from slowfast.config import published_keys
from slowfast.config.key import coerce
from slowfast.config.keys import KEYS
from slowfast.config.parse import OVERRIDES, Setting, read_settings
from slowfast.errors import ConfigError
from slowfast.utils.text import did_you_mean, nearest_keys, plain, quoted, redact

_LOG = logging.getLogger(__name__)
_ALL_KEYS = "docs/CONFIG.md lists all keys"
_KEY_EQUALS_VALUE = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


class ConfigNode(CfgNode):
    """Config tree whose values keep the types of their defaults."""

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        """Merge a YAML file, at a path or an address, after the files of its `_BASE_` chain.

        Raises:
            ConfigError: For any error in a file, with its line. Nothing is merged in this case.
        """
        self._merge(read_settings(cfg_filename, self._is_section), plain(cfg_filename))

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge overrides.

        Args:
            cfg_list: KEY, VALUE, ... or KEY=VALUE, ...; values are strings as on the command line or Python values.

        Raises:
            ConfigError: For any error, including published keys without effect. Nothing is merged in this case.
        """
        self._merge(_parse_overrides(cfg_list), OVERRIDES)

    def dump(self, **options: Any) -> str:
        """Return the tree as YAML that can be loaded again, except for secrets in addresses, which are redacted."""
        return str(CfgNode.dump(_redacted(self), **options))

    def digest(self) -> str:
        """Return the first 16 hexadecimal digits of the SHA-256 of `dump`, which identify a config in results."""
        return hashlib.sha256(self.dump().encode()).hexdigest()[:16]

    def keys_by_path(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield the dotted name and the value of every key."""
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
            hint = did_you_mean(" or ".join(nearest_keys(setting.key, known))) or self._list_siblings(setting.key)
            raise ConfigError(f"{setting.where}: unknown key {plain(setting.key)}.{hint}")
        if isinstance(default, ConfigNode):
            keys = ", ".join(default)
            raise ConfigError(f"{setting.where}: {setting.key} is a section, not a key. Its keys: {keys}")
        declared = KEYS.get(setting.key)
        return coerce(setting, default, declared.type if declared else None)

    def _find(self, key: str) -> Any:
        """Return the value or section of a dotted name; None if there is none (values are never None)."""
        here: Any = self
        for name in key.split("."):
            if not isinstance(here, ConfigNode) or name not in here:
                return None
            here = here[name]
        return here

    def _list_siblings(self, key: str) -> str:
        """Return a sentence with the other keys of a key's section, or a reference to all keys."""
        section = key.rpartition(".")[0]
        node = self._find(section) if section else None
        if isinstance(node, ConfigNode):
            return f" Keys of {section}: {', '.join(node)}"
        return f" {_ALL_KEYS}"

    def _is_section(self, key: str) -> bool:
        return isinstance(self._find(key), ConfigNode)


def _redacted(node: ConfigNode) -> ConfigNode:
    """Copy a tree and replace passwords and tokens in addresses by ``***``."""
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


def _parse_overrides(tokens: Sequence[Any]) -> list[Setting]:
    """Parse tokens such as ["KEY", "VALUE", "KEY=VALUE"]."""
    settings: list[Setting] = []
    rest = iter(tokens)
    for token in rest:
        joined = _KEY_EQUALS_VALUE.fullmatch(token) if isinstance(token, str) else None
        if joined:
            settings.append(Setting(joined[1], joined[2], OVERRIDES))
            continue
        if not isinstance(token, str) or not re.fullmatch(r"[A-Za-z_][\w.]*", token):
            before = settings[-1] if settings else None
            if before is not None and isinstance(before.raw, str) and before.raw.startswith("["):
                raise before.error(
                    f"the list {quoted(before.raw)} is not closed. Write lists without spaces, such as [1,2]"
                )
            raise ConfigError(f"{OVERRIDES}: expected a key such as TRAIN.ENABLE, got {quoted(token)}")
        try:
            value = next(rest)
        except StopIteration:
            raise ConfigError(
                f"{OVERRIDES}: {plain(token)} has no value. Write KEY VALUE pairs such as TEST.NUM_ENSEMBLE_VIEWS 4"
            ) from None
        settings.append(Setting(token, value, OVERRIDES))
    return settings
