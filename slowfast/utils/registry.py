"""Registries of classes by the name that a config selects them with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fvcore.common.registry import Registry as FvcoreRegistry

from slowfast.errors import ConfigError
from slowfast.utils.suggest import unknown_value

Base = TypeVar("Base")
Registered = TypeVar("Registered", bound=type)


class Registry(FvcoreRegistry, Generic[Base]):
    """fvcore's registry, restricted to the subclasses of one base class.

    A class is registered under its own name or under ``name``; decorators may be stacked to give it several names:

    .. code-block:: python

        @MODEL_REGISTRY.register()
        class MyNetwork(Network): ...

    Args:
        name: Name of the registry, for messages.
        base: Class that every registered class must derive from.
    """

    def __init__(self, name: str, base: type[Base]) -> None:
        super().__init__(name)
        self.base = base

    def register(self, obj: Any = None, *, name: str | None = None) -> Any:
        """Register a class; without ``obj``, return the decorator that does.

        Args:
            obj: Class to register.
            name: Name in configs; the class's own name by default.

        Raises:
            ConfigError: If the class does not derive from the base class or the name is taken.
        """
        if obj is None:
            return self._decorator(name)
        self._do_register(name or obj.__name__, obj)
        return obj

    def get(self, name: str) -> type[Base]:
        """Return the class registered under a name.

        Raises:
            ConfigError: If there is none; the message suggests the closest name.
        """
        return self.find(name, f"{self._name} registry")

    def find(self, name: str, key: str) -> type[Base]:
        """Return the class registered under a name that a config key holds.

        Args:
            name: Name to look up.
            key: Config key, for the message.

        Raises:
            ConfigError: If there is none; the message suggests the closest name.
        """
        if name not in self:
            raise ConfigError(unknown_value(key, name, self.names()))
        found: type[Base] = super().get(name)
        return found

    def names(self) -> list[str]:
        """Return all registered names in alphabetical order."""
        return sorted(name for name, _ in self)

    def _decorator(self, name: str | None) -> Callable[[Registered], Registered]:
        def decorate(cls: Registered) -> Registered:
            self._do_register(name or cls.__name__, cls)
            return cls

        return decorate

    def _do_register(self, name: str, obj: Any) -> None:
        where = f"{self._name} registry"
        if not (isinstance(obj, type) and issubclass(obj, self.base)):
            raise ConfigError(f"{where}: {_describe(obj)} must derive from {_describe(self.base)}")
        if name in self:
            taken = _describe(super().get(name))
            raise ConfigError(
                f"{where}: the name {name!r} of {_describe(obj)} is already taken by {taken}. Choose another name"
            )
        super()._do_register(name, obj)


def _describe(obj: Any) -> str:
    """Return the full name of a class, or the text of any other object, for messages."""
    return f"{obj.__module__}.{obj.__qualname__}" if isinstance(obj, type) else repr(obj)
