"""Public name of `load_test_checkpoint(cfg, model)`, kept for scripts that import it from here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["load_test_checkpoint"]


def __getattr__(name: str) -> Any:
    """Import the function from the engine, a package above this one, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("slowfast.engine.state"), name)
