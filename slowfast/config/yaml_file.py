"""A YAML config file and the files it names under `_BASE_` -> settings, each with its file and line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from slowfast.config.nearest import did_you_mean, nearest_file
from slowfast.config.plain_yaml import PlainLoader
from slowfast.config.setting import Setting, raw_value
from slowfast.errors import ConfigError
from slowfast.utils.quote import plain, quoted
from slowfast.utils.text_file import MIB, UnreadableTextError, read_text_file

BASE_KEY = "_BASE_"
MAX_BYTES = MIB
MAX_BASES = 20  # files in a chain
# What YAML derives by itself from plain text; anything else (!!python/...) is refused.
PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map")
)


def read_settings(path: Path, is_section: Callable[[str], bool]) -> list[Setting]:
    """Read all settings of a config file, those of its `_BASE_` chain first.

    Args:
        path: The file. A `_BASE_` in it is relative to its folder.
        is_section: Tells whether a dotted key holds further keys.

    Raises:
        ConfigError: For a missing or unreadable file, broken YAML, contradicting duplicates and a circular chain.
    """
    return _read_chain(path, is_section, (), "")


def _read_chain(path: Path, is_section: Callable[[str], bool], chain: tuple[Path, ...], named_at: str) -> list[Setting]:
    settings = _read_one(path, is_section, named_at)
    base = next((setting for setting in settings if setting.key == BASE_KEY), None)
    if base is None:
        return settings
    if not isinstance(base.raw, str) or not base.raw:
        raise base.error(f"expected the path of one config file, got {quoted(base.raw)}")
    chain = (*chain, Path(os.path.realpath(path)))
    base_path = path.parent / base.raw
    if "\0" not in base.raw and Path(os.path.realpath(base_path)) in chain:
        names = " -> ".join(plain(p) for p in (*chain, os.path.realpath(base_path)))
        raise ConfigError(f"{base.where}: {BASE_KEY} is circular: {names}. Remove one of the links")
    if len(chain) > MAX_BASES:
        raise ConfigError(f"{base.where}: {BASE_KEY}: more than {MAX_BASES} files build on each other. Merge some")
    own = [setting for setting in settings if setting.key != BASE_KEY]
    return _read_chain(base_path, is_section, chain, f"{base.where}: {BASE_KEY}: ") + own


def _read_one(path: Path, is_section: Callable[[str], bool], named_at: str) -> list[Setting]:
    shown = plain(path)
    try:
        node = yaml.compose(_read_text(path, named_at), Loader=PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{shown}{line}: not valid YAML: {plain(error.problem or error.context)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{shown}: not valid YAML: {plain(str(error).splitlines()[0])}") from None
    except (ValueError, OverflowError):  # an escape beyond Unicode, such as "\UFFFFFFFF"
        raise ConfigError(f"{shown}: not valid YAML: an escape sequence is out of range") from None
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        number = node.start_mark.line + 1
        raise ConfigError(f"{shown}:{number}: expected sections and keys, such as TRAIN: {{ENABLE: True}}")
    return _flatten(node, "", shown, is_section, {})


def _read_text(path: Path, named_at: str) -> str:
    try:
        return read_text_file(path, MAX_BYTES)
    except UnreadableTextError as error:
        near = nearest_file(path, "*.yaml") if error.missing else None
        line = f"{plain(path)}:{error.line}" if error.line else plain(path)
        raise ConfigError(f"{named_at}config file {line} {error.reason}.{did_you_mean(near)}".rstrip(".")) from None


def _flatten(
    node: yaml.MappingNode, prefix: str, shown: str, is_section: Callable[[str], bool], seen: dict[str, Any]
) -> list[Setting]:
    """Return the settings of a mapping and of the sections in it, in the order they are written.

    Args:
        node: The mapping.
        prefix: Dotted key of the mapping, with a dot at its end; "" for the file.
        shown: Name of the file, for messages.
        is_section: Tells whether a dotted key holds further keys.
        seen: Raw value of each key read before; updated.
    """
    settings: list[Setting] = []
    for key_node, value in node.value:
        where = f"{shown}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{where}: a key must be a name")
        key = prefix + key_node.value
        section = is_section(key)
        raw = raw_value(value)
        # The published YAML files hold COSINE_AFTER_WARMUP twice, with the same value.
        if key in seen and (section or seen[key] != raw):
            raise ConfigError(f"{where}: {plain(key)} is set twice in this file. Keep one of them")
        seen[key] = raw
        _refuse_tags(value, where, key)
        if section and isinstance(value, yaml.MappingNode):
            settings += _flatten(value, key + ".", shown, is_section, seen)
        elif not (section and raw is None):  # a section with all its keys commented out is empty
            settings.append(Setting(key, raw, where))
    return settings


def _refuse_tags(node: yaml.Node, where: str, key: str) -> None:
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    for part in (node, *items):
        if part.tag not in PLAIN_TAGS:
            raise ConfigError(f"{where}: {plain(key)}: the tag {plain(part.tag)} is not allowed in a config. Remove it")
