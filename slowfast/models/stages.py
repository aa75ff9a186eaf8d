"""Checks that networks share: lists with one value per stage, and recomputation of activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from slowfast.errors import ConfigError

if TYPE_CHECKING:
    from slowfast.config.node import ConfigNode


def check_lengths(section: str, *, count: int | None = None, **lists: Sequence[float]) -> None:
    """Raise ConfigError unless all lists have one value per stage.

    Args:
        section: Section of the config whose keys the message names.
        count: Number of stages, for networks with a fixed one.
        lists: The values of each key.
    """
    lengths = {key: len(values) for key, values in lists.items()}
    first, wanted = next(iter(lengths.items()))
    for key, n in lengths.items():
        if n == 0:
            raise ConfigError(f"{section}.{key} is empty. It needs one value per stage")
        if n != wanted:
            raise ConfigError(
                f"{section}.{first} has {wanted} values but {section}.{key} has {n}; both need one per stage"
            )
    for key, n in lengths.items():
        if count is not None and n != count:
            raise ConfigError(f"{section}.{key} has {n} values; it needs {count}, one per stage")


def check_no_recomputation(cfg: ConfigNode) -> None:
    """Raise ConfigError where activations shall be recomputed in a network whose batch norm would count them twice."""
    if cfg.MODEL.ACT_CHECKPOINT:
        raise ConfigError(
            f"MODEL.ACT_CHECKPOINT: {cfg.MODEL.MODEL_NAME} does not support it, because its batch norm would count "
            "each batch twice. Set it to False"
        )
