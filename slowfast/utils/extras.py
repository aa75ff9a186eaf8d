"""Optional packages, which are imported where they are needed, and the extras that install them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from slowfast.errors import UserError


def import_extra(
    module: str, extra: str, where: str, otherwise: str = "", error_type: type[Exception] = UserError
) -> Any:
    """Import a module of an optional package.

    Args:
        module: Dotted name of the module.
        extra: Extra of slowfast that installs the package.
        where: File, option or command that needs it, for the message.
        otherwise: What can be done instead of installing it, such as "use .pt2".
        error_type: Class of the error.

    Raises:
        UserError: If it cannot be imported. The message names the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        needed = f"{where} needs {module.partition('.')[0]}, which cannot be imported ({error})"
        advice = f'Run pip install "slowfast[{extra}]"' + (f", or {otherwise}" if otherwise else "")
        raise error_type(f"{needed}. {advice}") from error
