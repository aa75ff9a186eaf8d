"""A YAML config file and the files it names under `_BASE_` -> settings, each with its file and line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from slowfast.config.nearest import nearest_file
from slowfast.config.setting import Setting, raw_value
from slowfast.errors import ConfigError

BASE_KEY = "_BASE_"
# What YAML derives by itself from plain text; anything else (!!python/...) is refused.
PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map")
)


def read_settings(path: Path, is_section: Callable[[str], bool]) -> list[Setting]:
    """All settings of `path`, those of its `_BASE_` chain first.

    `_BASE_` is relative to the file that names it. `is_section` tells whether a dotted key holds further keys.
    Raises ConfigError for a missing or unreadable file, broken YAML, contradicting duplicates and a circular chain.
    """
    return _read_chain(path, is_section, ())


def _read_chain(path: Path, is_section: Callable[[str], bool], chain: tuple[Path, ...]) -> list[Setting]:
    real = path.resolve()
    if real in chain:
        names = " -> ".join(str(p) for p in (*chain, real))
        raise ConfigError(f"{path}: {BASE_KEY} is circular: {names}")
    settings = _read_one(path, is_section)
    bases = [s for s in settings if s.key == BASE_KEY]
    if not bases:
        return settings
    base = bases[0]
    if not isinstance(base.raw, str) or not base.raw:
        raise base.error(f"expected the path of one config file, got {base.raw!r}")
    own = [s for s in settings if s.key != BASE_KEY]
    return _read_chain(path.parent / base.raw, is_section, (*chain, real)) + own


def _read_one(path: Path, is_section: Callable[[str], bool]) -> list[Setting]:
    try:
        node = yaml.compose(_read_text(path), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: expected sections and keys (TRAIN: ...)")
    return _flatten(node, "", path, is_section)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = nearest_file(path, "*.yaml")
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"config file {path} does not exist{hint}") from None
    except OSError as error:
        raise ConfigError(f"config file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"config file {path} is not a text file in UTF-8") from None


def _flatten(node: yaml.MappingNode, prefix: str, path: Path, is_section: Callable[[str], bool]) -> list[Setting]:
    """Settings of a mapping and of the sections in it, in the order they are written."""
    settings: list[Setting] = []
    seen: dict[str, Any] = {}
    for key_node, value in node.value:
        where = f"{path}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{where}: a key must be a name")
        key = prefix + key_node.value
        section = is_section(key)
        raw = raw_value(value)
        # The published YAML files hold COSINE_AFTER_WARMUP twice, with the same value.
        if key in seen and (section or seen[key] != raw):
            raise ConfigError(f"{where}: {key} stands twice in this file; keep one of them")
        seen[key] = raw
        _refuse_tags(value, where, key)
        if section and isinstance(value, yaml.MappingNode):
            settings += _flatten(value, key + ".", path, is_section)
        elif not (section and raw is None):  # a section with all its keys commented out is empty
            settings.append(Setting(key, raw, where))
    return settings


def _refuse_tags(node: yaml.Node, where: str, key: str) -> None:
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    for part in (node, *items):
        if part.tag not in PLAIN_TAGS:
            raise ConfigError(f"{where}: {key}: the tag {part.tag} is not allowed in a config")
