"""Inert placeholders for classes and functions in a pickle, and errors of the restricted unpickler."""

from __future__ import annotations

import sys
from _compat_pickle import IMPORT_MAPPING
from dataclasses import dataclass
from typing import Any

MAX_KEY_DEPTH = 4  # nested tuples as keys: hashing deeper ones could exhaust the C stack
STANDARD_LIBRARY = frozenset(sys.stdlib_module_names) | {name.partition(".")[0] for name in IMPORT_MAPPING}
_SCALARS = (str, bytes, int, float, complex, bool, type(None))


class RefusedPickle(Exception):
    """Raised for a pickle that refers to something unsafe: a function call or an unknown name."""


class MalformedPickle(Exception):
    """Raised for bytes that are not a valid pickle of plain data."""


@dataclass(frozen=True, slots=True)
class GlobalName:
    """Name of a class or function in a pickle, which is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def package(self) -> str:
        """Top-level package."""
        return self.module.partition(".")[0]

    @property
    def looks_like_a_class(self) -> bool:
        """Return whether the name is capitalized like a class (PEP 8)."""
        return self.name.rpartition(".")[2].lstrip("_")[:1].isupper()


class InertObject(dict):
    """Data of an object whose class is unknown to this reader.

    Args:
        class_name: Full name of the class in the file.
        args: Arguments of its constructor.
    """

    def __init__(self, class_name: str, args: tuple[Any, ...] = ()) -> None:
        super().__init__()
        self.class_name, self.args = class_name, args
        self.state: Any = None
        self.elements: list[Any] = []

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<inert {self.class_name}>"


def checked_key(key: Any) -> Any:
    """Return a dict key or set member after checking that it is cheap and safe to hash; else raise MalformedPickle."""
    if not _is_plain_key(key, MAX_KEY_DEPTH):
        raise MalformedPickle(f"a key is a {type(key).__name__}")
    return key


def _is_plain_key(key: Any, depth: int) -> bool:
    if type(key) in (tuple, frozenset):
        return depth > 0 and all(_is_plain_key(item, depth - 1) for item in key)
    if isinstance(key, _SCALARS) or isinstance(key, (GlobalName, InertObject)):
        return True
    return type(key).__module__ in ("torch", "numpy", "pathlib", "datetime") and type(key).__hash__ is not None
