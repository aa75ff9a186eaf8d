"""Config keys: declarations with default, meaning, unit and rule in one place, and conversion of raw values.

A section is declared as SlowFast declares it::

    TRAIN = Section("TRAIN", "Training")
    TRAIN.EVAL_PERIOD = Key(10, "Epochs between validations.", unit="epochs", rule=Range(1, 10**9))
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

import yaml

from slowfast.config.parse import PlainLoader, Setting, raw_value
from slowfast.config.rules import Rule
from slowfast.errors import ConfigError
from slowfast.utils.text import quoted


@dataclass(frozen=True)
class Key:
    """Declaration of a config key.

    Args:
        default: Default value. Its type is the type of the key.
        doc: Meaning, in sentences; docs/CONFIG.md shows it.
        unit: Unit of the value or of each element, such as "frames"; "" for none.
        rule: Allowed values; None for any value of the type.
        length: Number of elements of a list; None for any.
        type: Type of the key if the default is ambiguous: ``bool | int``, or ``list[str]`` for an empty list, which
            otherwise holds numbers.
        origin: Source of the default, one of `ORIGINS`; "" if it was chosen for this project.
    """

    default: Any
    doc: str
    _: KW_ONLY
    unit: str = ""
    rule: Rule | None = None
    length: int | None = None
    type: object = None
    origin: str = ""

    def check(self, name: str, value: Any) -> None:
        """Check a value.

        Args:
            name: Dotted name of the key, for messages.
            value: Value of the correct type.

        Raises:
            ConfigError: If the value is not allowed.
        """
        if self.length is not None and len(value) != self.length:
            raise ConfigError(f"{name} has {len(value)} values. It must have {self.length}")
        if self.rule is not None:
            self.rule.check(name, value)


# Sources of defaults, for docs/CONFIG.md.
ORIGINS = {
    "SF": "PySlowFast",
    "M": "the YAML files of the MorphMLP authors",
    "ConvMLP": "the ConvMLP authors' code",
    "EAT": "the EAT authors' code",
    "evMLP": "the evMLP author's code",
    "Event2Vec": "the Event2Vec authors' code",
    "DeiT": "the DeiT authors' code",
    "torch": "PyTorch",
    "torchvision": "torchvision",
    "timm": "timm",
}


class Section:
    """Section of the config. Assigning a `Key` to an attribute declares the key.

    Args:
        name: Name in the config, such as "TRAIN"; "" for top-level keys.
        title: Heading in docs/CONFIG.md.
        doc: Paragraph below the heading.
    """

    name: str
    title: str
    doc: str
    keys: dict[str, Key]

    def __init__(self, name: str, title: str, doc: str = "") -> None:
        self.__dict__.update(name=name, title=title, doc=doc, keys={})

    def __setattr__(self, name: str, key: Key) -> None:
        if not name.isupper() or name in self.keys:
            raise ValueError(f"{self.full_name(name)}: keys must be in upper case and declared once")
        self.keys[name] = key

    def full_name(self, name: str) -> str:
        """Return the dotted name of a key of this section."""
        return f"{self.name}.{name}" if self.name else name


# Booleans of YAML 1.1, also accepted on the command line.
TRUE_WORDS = frozenset({"true", "yes", "on"})
FALSE_WORDS = frozenset({"false", "no", "off"})
# Limits far above any sensible value, to protect later checks from slow or huge inputs.
MAX_TEXT = 4096  # characters
MAX_ELEMENTS = 1000  # elements per list
INT_BITS = 63
_INTEGER = re.compile(r"[+-]?(0|[1-9]\d*(_\d+)*)", re.ASCII)
_LEADING_ZEROS = re.compile(r"[+-]?0[\d_]+", re.ASCII)


def coerce(setting: Setting, default: Any, declared: object = None) -> Any:
    """Convert a raw value to the type of its key.

    Strings are parsed by the type of the key instead of YAML's rules, so ``2e-4`` is a float and a folder may be named
    2024.

    Args:
        setting: Key and raw value.
        default: Default of the key.
        declared: Type of the key if the default is ambiguous: ``bool | int`` or ``list[str]``.

    Raises:
        ConfigError: If the value cannot be converted.
    """
    try:
        if declared == bool | int:
            return _bool_or_count(setting.raw)
        if isinstance(default, list):
            return _list(setting.raw, [""] if declared == list[str] else default)
        return _converter(default)(setting.raw)
    except ValueError as error:
        expected, *advice = error.args
        raise setting.error(". ".join([f"expected {expected}, got {quoted(setting.raw)}", *advice])) from None


def _converter(default: Any) -> Callable[[Any], Any]:
    # bool first, since it is a subclass of int
    for kind, convert in ((bool, _bool), (int, _int), (float, _float), (str, _text)):
        if isinstance(default, kind):
            return convert
    raise TypeError(f"no conversion to the type of {default!r}")


def _bool(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.lower() in TRUE_WORDS | FALSE_WORDS:
        return raw.lower() in TRUE_WORDS
    raise ValueError("True or False")


def _int(raw: Any) -> int:
    if isinstance(raw, str):
        text = raw.strip()
        if _LEADING_ZEROS.fullmatch(text):
            raise ValueError("an integer without leading zeros (octal in YAML)")
        # Count digits first, since Python refuses to convert very long ones.
        raw = int(text) if _INTEGER.fullmatch(text) and len(text) <= INT_BITS else raw
    if isinstance(raw, int) and not isinstance(raw, bool):
        if raw.bit_length() > INT_BITS:
            raise ValueError(f"an integer below 2**{INT_BITS}")
        return raw
    is_long = isinstance(raw, str) and _INTEGER.fullmatch(raw.strip())
    raise ValueError(f"an integer below 2**{INT_BITS}" if is_long else "an integer")


def _float(raw: Any) -> float:
    wanted = "a number"
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise ValueError(wanted)
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        raise ValueError(wanted) from None
    if not math.isfinite(value):
        raise ValueError("a finite number")
    return value


def _number(raw: Any) -> int | float:
    """Convert to int if the value is written as one, else to float."""
    try:
        return _int(raw)
    except ValueError:
        return _float(raw)


def _text(raw: Any) -> str:
    if raw is None:
        return ""
    if isinstance(raw, os.PathLike):
        raw = os.fspath(raw)
    if not isinstance(raw, str):
        raise ValueError("a string")
    if len(raw) > MAX_TEXT:
        raise ValueError(f"a string of at most {MAX_TEXT} characters")
    if "\0" in raw:
        raise ValueError("a string without NUL characters")
    if any("\ud800" <= character <= "\udfff" for character in raw):
        try:
            os.fsencode(raw).decode("utf-8")  # command line in a locale without UTF-8
        except UnicodeError:
            raise ValueError("a UTF-8 string") from None
    return raw


def _bool_or_count(raw: Any) -> bool | int:
    wanted = "True, False or an integer from 0"
    for convert in (_bool, _int):
        try:
            value = convert(raw)
        except ValueError:
            continue
        if value < 0:
            raise ValueError(wanted)
        return value
    raise ValueError(wanted)


def _list(raw: Any, default: list[Any]) -> list[Any]:
    """Convert to a list with the element type of the default, or of numbers if the default is empty."""
    if isinstance(raw, str):
        raw = _list_from_text(raw)
    if not isinstance(raw, (list, tuple)):
        raise ValueError("a list such as [1,2]")
    if len(raw) > MAX_ELEMENTS:
        raise ValueError(f"a list of at most {MAX_ELEMENTS} values")
    convert = _converter(default[0]) if default else _number
    try:
        return [convert(element) for element in raw]
    except ValueError as error:
        raise ValueError(f"a list in which each element is {error}") from None


def _list_from_text(text: str) -> list[Any]:
    """Split a list such as [14,28] or (14,28) into strings."""
    inner = text.strip()
    if inner.startswith("(") and inner.endswith(")"):
        inner = "[" + inner[1:-1] + "]"
    bare = inner.strip("[](), ")
    simple = re.fullmatch(r"[\w.,+ -]{1,80}", bare)
    no_list = ValueError("a list", f"Write [{bare}]") if simple else ValueError("a list such as [1,2]")
    if not (inner.startswith("[") and inner.endswith("]")):
        raise no_list
    try:
        node = yaml.compose(inner, Loader=PlainLoader)
    except yaml.YAMLError:
        raise no_list from None
    if not isinstance(node, yaml.SequenceNode):
        raise no_list
    raw = raw_value(node)
    assert isinstance(raw, list)
    return raw
