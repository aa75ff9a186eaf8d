"""JSON of all files that the project writes and reads, with simplejson.

Output is ASCII, so that file names that are not UTF-8 survive, and valid JSON: NaN and the infinities become null.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import simplejson
from simplejson import JSONDecodeError

from slowfast.utils.files import atomic_write_text
from slowfast.utils.text import redact

__all__ = ["JSONDecodeError", "from_json", "to_json", "write_json"]


def to_json(content: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    """Return content as JSON, on one line unless an indent is given."""
    return str(simplejson.dumps(content, ignore_nan=True, indent=indent, sort_keys=sort_keys))


def from_json(text: str | bytes) -> Any:
    """Parse JSON; NaN and the infinities are accepted.

    Raises:
        JSONDecodeError: If the text is not JSON; a ValueError with the position of the mistake.
        ValueError: If a number is too long.
        RecursionError: If it is nested too deeply.
    """
    return simplejson.loads(text, allow_nan=True)


def write_json(path: Path, content: Any, setting: str = "") -> None:
    """Write a JSON file for users: indented, and without the credentials in addresses.

    Args:
        path: File to write, completely or not at all.
        content: Mappings, sequences, text and numbers.
        setting: Config key that names the folder, for error messages.
    """
    atomic_write_text(path, to_json(_redacted(content), indent=2) + "\n", setting)


def _redacted(content: Any) -> Any:
    if isinstance(content, str):
        return redact(content)
    if isinstance(content, Mapping):
        return {_redacted(key): _redacted(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_redacted(item) for item in content]
    return content
