"""Declarations of config keys: default, meaning, unit and rule in one place.

A section is declared as SlowFast declares it::

    TRAIN = Section("TRAIN", "Training")
    TRAIN.EVAL_PERIOD = Key(10, "Epochs between validations.", unit="epochs", rule=Range(1, 10**9))
"""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any

from slowfast.config.rules import Rule
from slowfast.errors import ConfigError


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

    def new_default(self) -> Any:
        """Return the default, copied if it is a list."""
        return copy.copy(self.default)

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
