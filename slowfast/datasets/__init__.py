"""Datasets: index, decode, sample, transform, collate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slowfast.datasets.build import build_dataset, build_loader


__all__ = ["build_dataset", "build_loader"]


def __getattr__(name: str) -> Any:
    """Import the registry, and with it PyTorch, on first use, because decoding needs neither."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from slowfast.datasets import build

    return getattr(build, name)
