"""Config tree: fvcore's CfgNode with typed values, published keys, and errors that name file, line and nearest key.

All merging is replaced: fvcore's reads `2e-4` as text, may evaluate Python tags (``allow_unsafe``) and raises a bare
KeyError for a typo. Inherited are attribute access, freezing, cloning and dumping.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from slowfast.config import published_keys
from slowfast.config.coerce import coerce
from slowfast.config.keys import KEYS
from slowfast.config.parse import OVERRIDES, Setting, read_settings
from slowfast.errors import ConfigError
from slowfast.utils.suggest import did_you_mean, nearest_keys
from slowfast.utils.text import plain, quoted, redact

_LOG = logging.getLogger(__name__)
_ALL_KEYS = "docs/CONFIG.md lists all keys"
_KEY_EQUALS_VALUE = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


class ConfigNode(CfgNode):
    """A tree of typed keys. Merging replaces values; the type of the default is kept."""

    def merge_from_file(self, cfg_filename: str | Path) -> None:
        """Merge a YAML file and, before it, the file it names under `_BASE_`.

        Raises:
            ConfigError: For anything wrong in it, with file and line; nothing is merged then.
        """
        path = Path(cfg_filename)
        self._merge(read_settings(path, self._is_section), plain(path))

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge overrides: KEY VALUE pairs as on the command line, or KEY=VALUE; values may be Python values.

        Raises:
            ConfigError: For anything wrong in them, published keys without effect included; nothing is merged then.
        """
        self._merge(_pairs(cfg_list), OVERRIDES)

    def dump(self, **options: Any) -> str:
        """Write the tree as YAML, with secrets in addresses hidden; everything else can be loaded again."""
        return str(CfgNode.dump(_without_secrets(self), **options))

    def keys_by_path(self, prefix: str = "") -> Iterator[tuple[str, Any]]:
        """Yield every key in dotted form and its value."""
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
            hint = did_you_mean(" or ".join(nearest_keys(setting.key, known))) or self._keys_beside(setting.key)
            raise ConfigError(f"{setting.where}: unknown key {plain(setting.key)}.{hint}")
        if isinstance(default, ConfigNode):
            raise setting.error(f"is a section, not a key. Its keys: {', '.join(default)}")
        declared = KEYS.get(setting.key)
        return coerce(setting, default, declared.type if declared else None)

    def _find(self, key: str) -> Any:
        """Return the value or section under a dotted key, None where there is none (no key's value is None)."""
        here: Any = self
        for name in key.split("."):
            if not isinstance(here, ConfigNode) or name not in here:
                return None
            here = here[name]
        return here

    def _keys_beside(self, key: str) -> str:
        """Return a sentence that lists the keys of a key's section, or points to all keys."""
        section = key.rpartition(".")[0]
        node = self._find(section) if section else None
        if isinstance(node, ConfigNode):
            return f" Keys of {section}: {', '.join(node)}"
        return f" {_ALL_KEYS}"

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
    """Parse KEY VALUE KEY=VALUE ..."""
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
                raise before.error(f"the list {quoted(before.raw)} is not closed. Write it without spaces")
            raise ConfigError(f"{OVERRIDES}: expected a key such as TRAIN.ENABLE, got {quoted(token)}")
        try:
            value = next(rest)
        except StopIteration:
            raise ConfigError(
                f"{OVERRIDES}: {plain(token)} has no value. Overrides are pairs, such as TEST.NUM_ENSEMBLE_VIEWS 4"
            ) from None
        settings.append(Setting(token, value, OVERRIDES))
    return settings
