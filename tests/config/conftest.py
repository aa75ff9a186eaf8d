"""Fixtures of the config tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from slowfast.config.keys import KEYS, SECTIONS


@pytest.fixture
def restored_keys() -> Iterator[None]:
    """Remove the sections that a test adds."""
    sections, keys = list(SECTIONS), dict(KEYS)
    yield
    SECTIONS[:] = sections
    KEYS.clear()
    KEYS.update(keys)
