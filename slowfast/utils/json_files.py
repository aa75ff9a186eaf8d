"""JSON: the only place that reads and writes it, with simplejson."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import simplejson
from simplejson import JSONDecodeError

from slowfast.utils.files import atomic_write_text
from slowfast.utils.text import redact

__all__ = ["JSONDecodeError", "from_json", "iter_json_list", "to_json", "write_json"]

_JSON_SPACES = re.compile(r"[ \t\n\r]*")


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


def iter_json_list(text: str) -> Iterator[Any]:
    """Parse the items of a JSON list one after another, in the memory of one item.

    Raises:
        ValueError: If this may not be a JSON list; `from_json` returns the content or raises the error.
        RecursionError: If an item is nested too deeply.
    """
    decoder = simplejson.JSONDecoder(allow_nan=True)
    at = _after_spaces(text, 0)
    if not text.startswith("[", at) or "\ufeff" in text:  # which the decoder skips
        raise ValueError("not a list")
    while True:
        item, at = decoder.raw_decode(text, at + 1)
        yield item
        at = _after_spaces(text, at)
        if not text.startswith(",", at):
            break
    if not text.startswith("]", at) or _after_spaces(text, at + 1) < len(text):
        raise ValueError("not a list")


def _after_spaces(text: str, at: int) -> int:
    """Return the first position from `at` on without white space of JSON."""
    found = _JSON_SPACES.match(text, at)
    return at if found is None else found.end()


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
