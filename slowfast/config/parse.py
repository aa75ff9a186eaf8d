"""Config files: found by name or path and read after their `_BASE_` chains, within limits against untrusted files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from slowfast.errors import ConfigError
from slowfast.utils.files import MIB
from slowfast.utils.paths import UnreadableTextError, nearest_file, read_text_file
from slowfast.utils.remote.address import as_address, sibling_path
from slowfast.utils.text import did_you_mean, nearest_name, plain, quoted, redact

_SUFFIXES = (".yaml", ".yml")
_LIST = "slowfast model-info --list prints the names of the shipped configs"
MAX_DEPTH = 20  # levels of mappings and lists
MAX_NODES = 20_000
MAX_ALIASES = 100  # each may stand for many nodes
OVERRIDES = "overrides"
BASE_KEY = "_BASE_"
# Stands for the folder of the file at the start of a value, so that a config and its data can be moved together.
CONFIG_DIR = "${CONFIG_DIR}"
MAX_BYTES = MIB
MAX_BASES = 20  # files in a chain
# Tags that YAML resolves from plain scalars; all others, such as !!python/name, are refused.
PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map")
)


def configs_folder() -> Path:
    """Return the folder of the shipped configs: inside the installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Return the files of the shipped configs by name, such as "K400/K400_MLP_S16x4", in alphabetical order."""
    folder = configs_folder()
    files = [path for path in sorted(folder.rglob("*.yaml")) if not path.name.startswith("Base-")]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}


def find_config(name: str | Path) -> str | Path:
    """Find a config file.

    Args:
        name: Path or address of a file, else the name of a shipped config, with or without its suffix and "configs/"
            before it.

    Returns:
        The path or address of the file, or the path of the shipped config; `name` itself if it names a file that does
        not exist.

    Raises:
        ConfigError: If `name` has no suffix of a config file and is not the name of a shipped config.
    """
    if address := as_address(name):
        return address
    path = Path(name)
    if os.path.lexists(path):
        return path
    base = path.with_suffix("") if path.suffix in _SUFFIXES else path
    wanted = base.as_posix().removeprefix("configs/")
    shipped = shipped_configs()
    if wanted in shipped:
        return shipped[wanted]
    if path.suffix in _SUFFIXES or not str(name) or "\0" in str(name):
        return path
    raise ConfigError(f"--cfg {plain(name)}: no such file or shipped config.{_suggestion(wanted, shipped)}")


def base_reference(config: str | Path, folder: Path) -> str:
    """Return the `_BASE_` entry by which a config in a folder refers to another: name if shipped, else relative path.

    Raises:
        ConfigError: If the other config is at an address with a secret, which must not be written to a file.
    """
    address = as_address(config)
    if not address:
        shipped = {os.path.realpath(path): name for name, path in shipped_configs().items()}
        if name := shipped.get(os.path.realpath(config)):
            return name
        return os.path.relpath(os.path.realpath(config), folder.resolve())
    if redact(address) != address:
        raise ConfigError(f"--cfg {plain(address)}: the new config would contain the secret. Download the file first")
    return address


def _suggestion(wanted: str, shipped: dict[str, Path]) -> str:
    near = nearest_name(wanted, shipped)
    if not near:  # the name without its folder
        near_stem = nearest_name(wanted.rpartition("/")[2], {path.stem for path in shipped.values()})
        near = next((name for name, path in shipped.items() if path.stem == near_stem), "")
    return did_you_mean(near) or f" {_LIST}"


class PlainLoader(yaml.SafeLoader):
    """Safe loader with limits on nesting, nodes and aliases; MarkedYAMLError beyond them.

    PyYAML composes nodes recursively, so deep nesting would exhaust the stack.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = self._nodes = self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node within the limits."""
        self._nodes += 1
        self._aliases += self.check_event(yaml.AliasEvent)
        self._limit(self._depth >= MAX_DEPTH, f"more than {MAX_DEPTH} levels of nesting")
        self._limit(self._nodes > MAX_NODES, f"more than {MAX_NODES} values")
        self._limit(self._aliases > MAX_ALIASES, f"more than {MAX_ALIASES} aliases (*name)")
        self._depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _limit(self, exceeded: bool, problem: str) -> None:
        if exceeded:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=self.peek_event().start_mark)


class Nested:
    """Placeholder for a mapping or list where a scalar or a list of scalars is expected."""

    def __repr__(self) -> str:
        return "a nested value"


NESTED = Nested()


@dataclass(frozen=True)
class Setting:
    """Key with its raw value and origin.

    Args:
        key: Dotted name.
        raw: String as written, None for YAML's null, a list of these, or a Python value.
        where: "file:line", or OVERRIDES for the command line and Python.
    """

    key: str
    raw: Any
    where: str

    def error(self, message: str) -> ConfigError:
        """Return a ConfigError that starts with the origin and the key."""
        return ConfigError(f"{self.where}: {self.key}: {message}")


def raw_value(node: yaml.Node) -> Any:
    """Return the string of a YAML scalar, None for null, a list for a sequence of scalars, and NESTED otherwise."""
    if isinstance(node, yaml.ScalarNode):
        return None if node.tag == "tag:yaml.org,2002:null" else node.value
    if isinstance(node, yaml.SequenceNode):
        return [raw_value(item) if isinstance(item, yaml.ScalarNode) else NESTED for item in node.value]
    return NESTED


def read_settings(path: str | Path, is_section: Callable[[str], bool]) -> list[Setting]:
    """Read all settings of a config file after those of its `_BASE_` chain.

    Args:
        path: Path or address of a YAML file. A `_BASE_` in it is relative to its folder or names a shipped config;
            `${CONFIG_DIR}` at the start of a value stands for its folder.
        is_section: Returns True for the dotted name of a section.

    Raises:
        ConfigError: For an unreadable file, invalid YAML, conflicting duplicates and a circular chain.
    """
    return _read_chain(path, is_section, (), "")


def _read_chain(
    path: str | Path, is_section: Callable[[str], bool], chain: tuple[str, ...], named_at: str
) -> list[Setting]:
    settings = _read_one(path, is_section, named_at)
    base = next((setting for setting in settings if setting.key == BASE_KEY), None)
    if base is None:
        return settings
    if not isinstance(base.raw, str) or not base.raw:
        raise base.error(f"expected the path of a config file, got {quoted(base.raw)}")
    chain = (*chain, _identity(path))
    base_path = _base_path(path, base.raw)
    if "\0" not in base.raw and _identity(base_path) in chain:
        names = " -> ".join(plain(p) for p in (*chain, _identity(base_path)))
        raise ConfigError(f"{base.where}: {BASE_KEY} is circular: {names}. Remove one of the links")
    if len(chain) > MAX_BASES:
        raise ConfigError(f"{base.where}: {BASE_KEY}: more than {MAX_BASES} files in a chain. Merge some of them")
    own = [setting for setting in settings if setting.key != BASE_KEY]
    return _read_chain(base_path, is_section, chain, f"{base.where}: {BASE_KEY}: ") + own


def _base_path(path: str | Path, name: str) -> str | Path:
    """Return the path or address of the config that a file names as its `_BASE_`."""
    beside = sibling_path(path, name)
    return beside if os.path.lexists(beside) else shipped_configs().get(name, beside)


def _expanded(path: str | Path, raw: Any) -> Any:
    """Replace CONFIG_DIR at the start of a value in a file."""
    if not isinstance(raw, str) or not f"{raw}/".startswith(f"{CONFIG_DIR}/"):
        return raw
    rest = raw[len(CONFIG_DIR) :].lstrip("/")
    if as_address(path):
        return str(sibling_path(path, rest))
    return os.path.normpath(os.path.join(os.path.realpath(Path(path).parent), rest))


def _identity(path: str | Path) -> str:
    return as_address(path) or os.path.realpath(path)


def _read_one(path: str | Path, is_section: Callable[[str], bool], named_at: str) -> list[Setting]:
    shown = plain(path)
    try:
        node = yaml.compose(_read_text(path, named_at), Loader=PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{shown}{line}: not valid YAML: {plain(error.problem or error.context)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{shown}: not valid YAML: {plain(str(error).splitlines()[0])}") from None
    except (ValueError, OverflowError):  # escape beyond Unicode, such as "\UFFFFFFFF"
        raise ConfigError(f"{shown}: not valid YAML: an escape sequence is out of range") from None
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        number = node.start_mark.line + 1
        raise ConfigError(f"{shown}:{number}: expected sections and keys, such as TRAIN: {{ENABLE: True}}")
    settings = _flatten(node, "", shown, is_section, {})
    return [replace(setting, raw=_expanded(path, setting.raw)) for setting in settings]


def _read_text(path: str | Path, named_at: str) -> str:
    try:
        return read_text_file(path, MAX_BYTES)
    except UnreadableTextError as error:
        near = nearest_file(path, "*.yaml") if error.missing else None
        line = f"{plain(path)}:{error.line}" if error.line else plain(path)
        raise ConfigError(f"{named_at}config file {line} {error.reason}.{did_you_mean(near)}".rstrip(".")) from None


def _flatten(
    node: yaml.MappingNode, prefix: str, shown: str, is_section: Callable[[str], bool], seen: dict[str, Any]
) -> list[Setting]:
    """Return the settings of a mapping and its sections in the order of the file.

    Args:
        node: YAML mapping.
        prefix: Dotted name of the mapping with a trailing dot; "" for the file.
        shown: File name for messages.
        is_section: Returns True for the dotted name of a section.
        seen: Raw values of the keys read so far; updated in place.
    """
    settings: list[Setting] = []
    for key_node, value in node.value:
        where = f"{shown}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise ConfigError(f"{where}: keys must be names such as TRAIN")
        key = prefix + key_node.value
        section = is_section(key)
        raw = raw_value(value)
        # The published YAML files set COSINE_AFTER_WARMUP twice, to the same value.
        if key in seen and (section or seen[key] != raw):
            raise ConfigError(f"{where}: {plain(key)} is set twice in this file. Keep one of them")
        seen[key] = raw
        _refuse_tags(value, where, key)
        if section and isinstance(value, yaml.MappingNode):
            settings += _flatten(value, key + ".", shown, is_section, seen)
        elif not (section and raw is None):  # all keys of the section are commented out
            settings.append(Setting(key, raw, where))
    return settings


def _refuse_tags(node: yaml.Node, where: str, key: str) -> None:
    items = node.value if isinstance(node, yaml.SequenceNode) else []
    for part in (node, *items):
        if part.tag not in PLAIN_TAGS:
            raise ConfigError(f"{where}: {plain(key)}: the tag {plain(part.tag)} is not allowed in a config. Remove it")
