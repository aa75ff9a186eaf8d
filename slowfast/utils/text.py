"""Text of messages: escaping, redacting, quoting and shortening of values, suggestions for misspelled names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

HIDDEN = "***"

# Control characters, line and paragraph separators, bidirectional marks, and surrogates, by which Python represents
# bytes of file names that are not valid UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

# URLs. `pathlib` turns "//" into "/", and slashes or colons may be missing.
_SCHEMES = r"rtsp[sut]?|rtmp\w{0,2}|https?|s?ftps?|s3|gs|srt|rtp|udp|tcp|tls|hls|mms[ht]?|ws{1,2}"
_ADDRESS = re.compile(rf"\b(?:(?:{_SCHEMES})(?::/*|//)|[a-z][a-z0-9+.-]{{1,15}}:/+)\S+", re.IGNORECASE)
_NEXT = re.compile(r"([,;|\"'])(?=[a-z][a-z0-9+.-]{1,15}:/)", re.IGNORECASE)  # between URLs separated without spaces
# user:password@ in the part before the first slash; a password may hold "@", and slashes where it was not encoded.
_USER = re.compile(r"^([a-z][a-z0-9+.-]*[:/]+)(?:[^\s/?#]+@|[^\s/?#:@]+:(?!\d+(?:[/?#]|$))\S*@)", re.IGNORECASE)
_SECRET_NAME = (
    r"[\w.%-]{0,40}(?:passw(?:or)?d|passphrase|passcode|pwd|secret|token|signature|credential|"
    r"api[-_]?key|access[-_]?key(?:[-_]?id)?)[\w.%-]{0,40}"
    r"|auth(?:orization|[-_]?key)?|key|sig|pass|pw|psw|psk|jwt|policy|session(?:[-_]?id)?|sid|hdnts|hdnea"
)
# The value ends at "&" or a space; punctuation after it belongs to the surrounding sentence.
_VALUE = r"""[^\s&]*?(?=["'`),.;:>\]]*(?:[\s&]|$))"""
_IN_QUERY = re.compile(rf"([?&](?:{_SECRET_NAME})=){_VALUE}", re.IGNORECASE)
_IN_ADDRESS = re.compile(rf"((?<![a-z0-9])(?:{_SECRET_NAME})=){_VALUE}", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace passwords, tokens and signatures in URLs by ``***``.

    Covers the user and password of ``scheme://user:password@host`` and values of parameters such as ``?token=``,
    ``&X-Amz-Signature=`` or ``/password=``.
    """
    return _IN_QUERY.sub(rf"\1{HIDDEN}", _ADDRESS.sub(lambda found: _redact_address(found[0]), text))


def _redact_address(addresses: str) -> str:
    return "".join(map(_redact_one, _NEXT.split(addresses)))


def _redact_one(address: str) -> str:
    return _IN_ADDRESS.sub(rf"\1{HIDDEN}", _USER.sub(rf"\1{HIDDEN}@", address))


def is_redacted(address: str) -> bool:
    """Return whether `redact` has replaced secrets of a URL, which therefore cannot be opened."""
    return f"{HIDDEN}@" in address or f"={HIDDEN}" in address


def escape(text: str, keep: str = "") -> str:
    r"""Replace characters that are unsafe in a terminal, log or table by backslash escapes.

    A newline becomes ``\n``, an escape character ``\x1b``, the byte 0xE9 of a file name that is not valid UTF-8
    ``\xe9``, a bidirectional mark ``\u202e``.

    Args:
        text: Untrusted text, such as a file name.
        keep: Control characters to keep, such as the newlines of a table.
    """
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    if character in _NAMED:
        return _NAMED[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a raw byte
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def sanitize(text: str) -> str:
    """Return one line for the screen or a log, with secrets redacted and control characters escaped."""
    return escape(redact(text))


def sanitize_lines(text: str) -> str:
    """Return a table or traceback for the screen or a log: like `sanitize`, but keeps newlines and tabs."""
    return escape(redact(text), keep="\n\t")


MAX_SHOWN = 120  # characters of a value


def quoted(value: Any, limit: int = MAX_SHOWN) -> str:
    """Return the repr of a value, shortened to about `limit` characters, with control characters escaped."""
    if isinstance(value, int) and value.bit_length() > 256:  # Python does not convert integers of more than 4300 digits
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
    """Return a path or word unchanged, or quoted and shortened if it is empty, long or not printable.

    Secrets in an address are redacted.
    """
    text = redact(str(text))
    return text if text.isprintable() and text == text.strip() and 0 < len(text) <= limit else quoted(text)


MAX_EDITS = 2
MAX_KEYS_SUGGESTED = 4


def edit_distance(a: str, b: str) -> int:
    """Return the Damerau-Levenshtein distance of two words (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        before, above, row = row, before, [i]
        for j, right in enumerate(b, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]


def nearest_name(word: str, candidates: Iterable[str]) -> str:
    """Return the candidate that `word` most likely misspells; an empty string if none is close.

    A candidate is close if it differs by at most 2 edits and a third of the word's length, ignoring case.
    """
    most = min(MAX_EDITS, len(word) // 3)
    wanted = word.lower()
    alike = (name for name in candidates if name and abs(len(name) - len(word)) <= most)
    # Break ties by length: a wrong letter is more likely than a missing one.
    close = [(edit_distance(wanted, name.lower()), abs(len(name) - len(word)), name) for name in alike]
    distance, _, name = min(close, default=(most + 1, 0, ""))
    return name if distance <= most else ""


def nearest_keys(key: str, candidates: Iterable[str]) -> list[str]:
    """Return likely intended keys: the closest one, else keys of the same name in other sections."""
    keys = list(candidates)
    near = nearest_name(key, keys)
    if near:
        return [near]
    leaf = key.rpartition(".")[2].lower()
    same_leaf = [name for name in keys if name.rpartition(".")[2].lower() == leaf]
    if not same_leaf:
        near_leaf = nearest_name(leaf, {name.rpartition(".")[2] for name in keys})
        same_leaf = [name for name in keys if near_leaf and name.rpartition(".")[2] == near_leaf]
    return same_leaf[:MAX_KEYS_SUGGESTED]


def did_you_mean(near: object) -> str:
    """Return the suggestion to append to an error message; an empty string if there is none."""
    return f" Did you mean {plain(near)}?" if near else ""


def unknown_value(where: str, value: object, choices: Iterable[str]) -> str:
    """Return the error message for a value that is not among the choices."""
    names = list(choices)
    near = nearest_name(str(value), names)
    shown = ", ".join(name or '""' for name in names)
    return f"{where}: unknown value {quoted(value)}.{did_you_mean(repr(near) if near else '')} Choices: {shown}"
