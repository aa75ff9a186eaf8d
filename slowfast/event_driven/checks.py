"""Checks of the EVENT settings, and the kinds of DATA.PATH_PREFIX."""

from __future__ import annotations

import os
import re
from pathlib import Path

from slowfast.config.defaults import on_videos
from slowfast.config.node import ConfigNode
from slowfast.errors import ConfigError
from slowfast.utils.suggest import did_you_mean, nearest_file
from slowfast.utils.text import is_redacted, plain

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)


def is_camera(place: str) -> bool:
    """Return whether DATA.PATH_PREFIX is the number of a camera, not an existing file or folder."""
    return place.isdecimal() and not os.path.exists(place)


def is_address(place: str) -> bool:
    """Return whether DATA.PATH_PREFIX is the address of a stream, such as rtsp://host/path."""
    return _ADDRESS.fullmatch(place) is not None


def check_address(address: str) -> None:
    """Raise ConfigError for an address from a saved config, which hides the password."""
    if is_redacted(address):
        raise ConfigError(
            f"DATA.PATH_PREFIX: the password or token of {address} was hidden when the config was saved. Give the full "
            "address again"
        )


def check(cfg: ConfigNode, world_size: int = 1) -> None:
    """Raise ConfigError if event-driven inference is not possible with these settings."""
    check_network(cfg)
    if not on_videos(cfg):
        return
    if world_size > 1:
        raise ConfigError(
            "EVENT.ENABLE: event-driven inference on videos runs in one process. Start it without torchrun"
        )
    place = cfg.DATA.PATH_PREFIX
    if not place:
        raise ConfigError(
            "EVENT.ENABLE: DATA.PATH_PREFIX is empty. Set it to a folder of videos, a file, the number of a camera, "
            "the address of a stream, or a .txt file that lists them"
        )
    if is_address(place):
        check_address(place)
    if not (is_camera(place) or is_address(place) or os.path.exists(place)):
        near = nearest_file(Path(place))
        raise ConfigError(f"DATA.PATH_PREFIX: {plain(place)} does not exist.{did_you_mean(near)}".removesuffix("."))


def check_network(cfg: ConfigNode) -> None:
    """Raise ConfigError unless the configured network computes every patch independently."""
    # Imported late, so that most configs are checked without loading the networks.
    from slowfast.models.build import MODEL_REGISTRY, find_network
    from slowfast.models.evmlp import EvMLP

    if not issubclass(find_network(cfg), EvMLP):
        possible = [name for name, network in MODEL_REGISTRY if issubclass(network, EvMLP)]
        raise ConfigError(f"EVENT.ENABLE: MODEL.MODEL_NAME must be {' or '.join(possible)}, not {cfg.MODEL.MODEL_NAME}")
