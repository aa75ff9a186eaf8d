"""Registries of classes and functions by the name that a config selects them with."""

from __future__ import annotations

from functools import partial
from types import FunctionType
from typing import Any, Generic, TypeVar

from fvcore.common.registry import Registry as FvcoreRegistry

from slowfast.errors import ConfigError
from slowfast.utils.text import unknown_value

Base = TypeVar("Base")
Entry = TypeVar("Entry")


class Registry(FvcoreRegistry, Generic[Entry]):
    """fvcore's Registry with user-facing errors for unknown and duplicate names.

    A class or function is registered under its own name or under ``name``; decorators may be stacked to give it several
    names:

    .. code-block:: python

        @OPTIMIZER_REGISTRY.register()
        def my_optimizer(cfg, groups): ...

    Args:
        name: Name of the registry, for messages.
    """

    def register(self, obj: Any = None, *, name: str | None = None) -> Any:
        """Register a class or function; without ``obj``, return the decorator that does.

        Args:
            obj: Class or function to register.
            name: Name in configs; its own name by default.

        Raises:
            ConfigError: If the name is taken.
        """
        if obj is None:
            return partial(self.register, name=name)
        self._do_register(name or obj.__name__, obj)
        return obj

    def get(self, name: str) -> Entry:
        """Return what is registered under a name.

        Raises:
            ConfigError: If there is none; the message suggests the closest name.
        """
        return self.find(name, f"{self._name} registry")

    def find(self, name: str, key: str) -> Entry:
        """Return what is registered under a name that a config key holds.

        Args:
            name: Name to look up.
            key: Config key, for the message.

        Raises:
            ConfigError: If there is none; the message suggests the closest name.
        """
        if name not in self:
            raise ConfigError(unknown_value(key, name, self.names()))
        found: Entry = super().get(name)
        return found

    def names(self) -> list[str]:
        """Return all registered names in alphabetical order."""
        return sorted(name for name, _ in self)

    def _do_register(self, name: str, obj: Any) -> None:
        if name in self:
            taken = _describe(super().get(name))
            raise ConfigError(
                f"{self._name} registry: the name {name!r} of {_describe(obj)} is already taken by {taken}. "
                "Choose another name"
            )
        super()._do_register(name, obj)


class ClassRegistry(Registry[type[Base]], Generic[Base]):
    """Registry restricted to the subclasses of one base class.

    .. code-block:: python

        @MODEL_REGISTRY.register()
        class MyNetwork(Network): ...

    Args:
        name: Name of the registry, for messages.
        base: Class that every registered class must derive from; anything else raises ConfigError.
    """

    def __init__(self, name: str, base: type[Base]) -> None:
        super().__init__(name)
        self.base = base

    def _do_register(self, name: str, obj: Any) -> None:
        if not (isinstance(obj, type) and issubclass(obj, self.base)):
            raise ConfigError(f"{self._name} registry: {_describe(obj)} must derive from {_describe(self.base)}")
        super()._do_register(name, obj)


def _describe(obj: Any) -> str:
    """Return the full name of a class or function, or the text of any other object, for messages."""
    return f"{obj.__module__}.{obj.__qualname__}" if isinstance(obj, type | FunctionType) else repr(obj)
