"""Import of the optional packages of the handlers."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from slowfast.utils.remote.address import FetchError


def import_extra(package: str, scheme: str, extra: str) -> Any:
    """Import the package that a scheme needs. Raises FetchError that names the extra."""
    try:
        return import_module(package)
    except ImportError as error:
        raise FetchError(
            f"cannot be fetched: {scheme}:// needs {package}, which cannot be imported ({error}). "
            f'pip install "slowfast[{extra}]"'
        ) from error
