"""Rules for the values of config keys: ranges, choices, registered names, paths and templates."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from string import Formatter
from typing import Any, Protocol

from slowfast.errors import ConfigError
from slowfast.utils.files import MAX_NAME_BYTES, MAX_PATH_BYTES
from slowfast.utils.text import quoted, unknown_value

MAX_SIDE = 16_384  # pixels
MAX_WORKERS = 1024  # workers per process
MAX_BLOCKS = 1000  # blocks per network, over all stages
# Longest list of numbers without a declared length.
MAX_LENGTH = 100
MAX_NAME = 128  # characters
_NOT_IN_NAMES = "/\\#?%:"  # characters that wandb's server refuses in project names


class Rule(Protocol):
    """Rule for the values of a key; ``str(rule)`` describes the allowed values."""

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError unless the value is allowed."""

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Range:
    """Interval for a number or each element of a list.

    Args:
        low: Smallest value.
        high: Largest value.
        above: Exclude `low` itself.
        below: Exclude `high` itself.
        max_sum: Largest sum of a list; None for no limit.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False
    max_sum: int | None = None

    def __contains__(self, value: float) -> bool:
        above_low = value > self.low if self.above else value >= self.low
        return above_low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if not (self.above or self.below):
            return f"from {self.low:,} to {self.high:,}"
        low = f"above {self.low:,}" if self.above else f"at least {self.low:,}"
        return f"{low} and {'below' if self.below else 'at most'} {self.high:,}"

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError for a number, or an element of a list, outside the interval."""
        if not isinstance(value, list):
            if value not in self:
                raise ConfigError(f"{key} ({quoted(value)}) must be {self}")
            return
        if len(value) > MAX_LENGTH:
            raise ConfigError(f"{key} has {len(value)} values. It may have at most {MAX_LENGTH}")
        if self.max_sum is not None and sum(value) > self.max_sum:
            raise ConfigError(f"{key} ({quoted(value)}): the sum must be at most {self.max_sum:,}")
        if any(element not in self for element in value):
            raise ConfigError(f"{key} ({quoted(value)}): each value must be {self}")


class Choices:
    """Closed set of values.

    Args:
        values: Allowed values, all strings or all integers.
    """

    def __init__(self, *values: str | int) -> None:
        self.values = values

    def __str__(self) -> str:
        return _listed(self.values)

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError for a value that is not among the choices."""
        _check_choice(key, value, self.values)


class Forms:
    """Names, some of which contain numbers.

    Args:
        forms: Regular expression of each form, by the form as shown to users.
        note: Meaning of the numbers.
    """

    def __init__(self, forms: Mapping[str, str], note: str) -> None:
        self.forms, self.note = forms, note

    def __str__(self) -> str:
        return f"{_listed(self.forms)} ({self.note})"

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError for a name that has none of the forms."""
        if not any(re.fullmatch(form, value, re.ASCII) for form in self.forms.values()):
            raise ConfigError(f"{unknown_value(key, value, self.forms)} ({self.note})")


@dataclass(frozen=True)
class RegistryNames:
    """Names in a registry that users can extend; the module is imported on first use.

    Args:
        module: Module that imports everything that the package registers.
        attribute: Name of the registry in the module, a fvcore Registry or a dict.
        built_in: Names that the package registers.
        defined_in: Module that defines the registry; before it is imported, no user can have registered a name.
    """

    module: str
    attribute: str
    built_in: tuple[str, ...] = ()
    defined_in: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """Registered names, sorted."""
        registry = getattr(import_module(self.module), self.attribute)
        # A fvcore Registry yields pairs of name and object.
        return tuple(sorted(entry[0] if isinstance(entry, tuple) else entry for entry in registry))

    def __str__(self) -> str:
        return _listed(self.values)

    def check_early(self, key: str, value: Any) -> None:
        """Raise ConfigError for a name, or one in a list, that is certainly not registered; imports no module."""
        if self.defined_in and self.defined_in not in sys.modules:
            for name in value if isinstance(value, list) else [value]:
                _check_choice(key, name, self.built_in)

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError for a name, or an element of a list of names, that is not registered."""
        for name in value if isinstance(value, list) else [value]:
            _check_choice(key, name, self.values)


@dataclass(frozen=True)
class FilePath:
    """Path of a file or folder, or the address of a stream.

    Args:
        required: Refuse an empty path.
    """

    required: bool = False

    def __str__(self) -> str:
        return "path" if self.required else 'path or ""'

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError for a path that is too long; existence is checked where it is used."""
        if self.required and not value:
            raise ConfigError(f"{key} must not be empty")
        if "://" in value:
            return
        if len(value.encode("utf-8", "surrogateescape")) > MAX_PATH_BYTES:
            raise ConfigError(f"{key} ({quoted(value)}) is longer than {MAX_PATH_BYTES} bytes. Choose a shorter path")
        if any(len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES for name in value.split("/")):
            raise ConfigError(f"{key} ({quoted(value)}): a file name is longer than {MAX_NAME_BYTES} bytes. Shorten it")


@dataclass(frozen=True)
class Name:
    """Name passed to other programs: one line of printable characters.

    Args:
        required: Refuse an empty name.
    """

    required: bool = False

    def __str__(self) -> str:
        return "name" if self.required else 'name or ""'

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError for a name that is too long or has characters that servers refuse in names."""
        if self.required and not value:
            raise ConfigError(f"{key} must not be empty")
        if len(value) > MAX_NAME or not value.isprintable() or set(value) & set(_NOT_IN_NAMES):
            raise ConfigError(
                f"{key} ({quoted(value)}) must be at most {MAX_NAME} printable characters without {_NOT_IN_NAMES}"
            )


@dataclass(frozen=True)
class Template:
    """File name with one plain ``{}`` field.

    Args:
        fields: Two example values for the field, which must give different names.
        spec: Regular expression of the allowed format specifications.
        example: A valid template, for messages.
    """

    fields: tuple[str, str] | tuple[int, int]
    spec: str
    example: str

    def __str__(self) -> str:
        return "path with one {} field"

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError unless there is one field with a short format and no attributes or conversions."""
        first, second = self.fields
        try:
            fields = [part[1:] for part in Formatter().parse(value) if part[1] is not None]
            plain_fields = all(
                name in ("", "0") and conversion is None and re.fullmatch(self.spec, spec or "")
                for name, spec, conversion in fields
            )
            usable = plain_fields and value.format(first) != value.format(second)
        except (ValueError, IndexError):
            usable = False
        if not usable:
            raise ConfigError(f"{key} ({quoted(value)}) must contain one plain {{}} field, such as {self.example}")
        FilePath().check(key, value)


@dataclass(frozen=True)
class Separator:
    """Separator between two fields of a line."""

    def __str__(self) -> str:
        return "string without line breaks"

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError for an empty string and for line breaks."""
        if not value:
            raise ConfigError(f"{key} must not be empty")
        if any(character in value for character in "\r\n"):
            raise ConfigError(f"{key} must not contain line breaks")


def _check_choice(key: str, value: Any, known: Collection[str | int]) -> None:
    if value in known:
        return
    if all(isinstance(choice, int) for choice in known):
        raise ConfigError(f"{key} ({quoted(value)}) must be {' or '.join(map(str, known))}")
    raise ConfigError(unknown_value(key, value, sorted(map(str, known))))


def _listed(values: Collection[str | int]) -> str:
    return ", ".join(str(value) if value != "" else '""' for value in values)
