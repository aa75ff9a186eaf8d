"""Configs that come with the package, found by name."""

from __future__ import annotations

import os
from pathlib import Path

from slowfast.errors import ConfigError
from slowfast.utils.remote.address import as_address
from slowfast.utils.suggest import did_you_mean, nearest_name
from slowfast.utils.text import plain, redact

_SUFFIXES = (".yaml", ".yml")
_LIST = "slowfast model-info --list prints the names of the shipped configs"


def configs_folder() -> Path:
    """Return the folder of the shipped configs: inside an installed package, else at the top of the checkout."""
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
    """Return how a config in a folder names another one as `_BASE_`: a shipped one by name, others by relative path.

    Raises:
        ConfigError: If the name of the other one is an address with a secret, which must not be written to a file.
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
