"""Values from outside in messages: on one line, without control characters, never longer than a line or two."""

from __future__ import annotations

from typing import Any

MAX_SHOWN = 120  # characters of a value


def quoted(value: Any, limit: int = MAX_SHOWN) -> str:
    """Return the repr of a value, shortened to about `limit` characters.

    Control characters, line breaks and characters that are not Unicode text are escaped.
    """
    if isinstance(value, int) and value.bit_length() > 256:  # Python refuses to print integers of 4300 digits
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (str, bytes)) and len(value) > limit:
        unit = "characters" if isinstance(value, str) else "bytes"
        return f"{value[: limit // 2]!r}... ({len(value)} {unit})"
    if isinstance(value, (list, tuple)) and len(value) > limit // 4:
        return f"a list of {len(value)} values"
    if isinstance(value, (list, tuple)):
        shown = "[" + ", ".join(quoted(element, limit) for element in value) + "]"
    else:
        shown = repr(value)
    return shown if len(shown) <= 2 * limit else f"{shown[:limit]}..."


def plain(text: object, limit: int = 2 * MAX_SHOWN) -> str:
    """Return a path or a word as it is, or quoted and shortened where it is empty, long or not printable."""
    text = str(text)
    return text if text.isprintable() and text == text.strip() and 0 < len(text) <= limit else quoted(text)
