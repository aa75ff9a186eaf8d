"""Range checks for the settings of the preparation commands."""

from __future__ import annotations

from collections.abc import Mapping

from slowfast.errors import UserError


def check_ranges(settings: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Check that the attributes of some settings are within their inclusive ranges; None is always valid.

    Raises:
        UserError: If a value is out of range; the message names the option of the command line.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be from {low} to {high}")
