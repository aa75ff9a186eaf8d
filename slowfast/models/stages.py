"""Lists of settings with one value per stage."""

from __future__ import annotations

from collections.abc import Sequence

from slowfast.errors import ConfigError


def check_lengths(section: str, **lists: Sequence[float]) -> None:
    """Raise ConfigError, naming the keys of the config's section, unless the lists are equally long and not empty."""
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        found = ", ".join(f"{section}.{key} has {n}" for key, n in lengths.items())
        raise ConfigError(f"{found} values. All need one per stage")
