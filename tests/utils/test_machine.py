"""Settings of the C library's memory allocator."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import pytest

from slowfast.utils.machine import keep_freed_memory

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3


@pytest.mark.parametrize("largest", [1 << 25, 1 << 40], ids=["old", "new"])
def test_both_thresholds_are_raised_as_far_as_the_c_library_accepts(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_to: dict[int, int] = {}

    def mallopt(name: int, value: int) -> int:
        if name == MMAP_THRESHOLD and value > largest:
            return 0
        set_to[name] = value
        return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert set_to == {MMAP_THRESHOLD: min(largest, 1 << 30), TRIM_THRESHOLD: 2**31 - 1}
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    keep_freed_memory()
