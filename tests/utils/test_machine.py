"""Measured choices, once per machine and again if their file cannot be used; the memory allocator of the C library."""

from __future__ import annotations

import ctypes
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from slowfast.utils import machine as module
from slowfast.utils.machine import fastest, keep_freed_memory, measured_choice

CHOICES = ("packed", "plain")
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The cache folder of a new machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    restart(monkeypatch)
    yield tmp_path / "cache" / "slowfast"


def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(module, "_chosen", {})


def once(choice: str = "plain") -> Callable[[], str]:
    """A measurement that fails the second time."""
    results = [choice]
    return results.pop


def never() -> str:
    raise AssertionError("measured again")


def test_a_choice_is_measured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured_choice("gelu 8", CHOICES, once("plain")) == "plain"
    assert measured_choice("gelu 8", CHOICES, never) == "plain"
    restart(monkeypatch)
    assert measured_choice("gelu 8", CHOICES, never) == "plain"
    assert measured_choice("gelu 16", CHOICES, once("packed")) == "packed"
    (file,) = folder.iterdir()
    assert json.loads(file.read_text()) == {"gelu 8": "plain", "gelu 16": "packed"}


def test_another_number_of_threads_is_measured_for_itself() -> None:
    threads = torch.get_num_threads()
    measured_choice("gelu", CHOICES, once("plain"))
    torch.set_num_threads(threads + 1)
    try:
        assert measured_choice("gelu", CHOICES, once("packed")) == "packed"
    finally:
        torch.set_num_threads(threads)
    assert measured_choice("gelu", CHOICES, never) == "plain"


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"{", b"[" * 100_000, b"[]", b'{"gelu": 1}', b'{"gelu": "unknown"}', b'{"gelu": null}']
)
def test_a_damaged_file_is_measured_again(content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured_choice("gelu", CHOICES, once("packed"))
    (file,) = folder.iterdir()
    file.write_bytes(content)
    restart(monkeypatch)
    assert measured_choice("gelu", CHOICES, once("plain")) == "plain"
    restart(monkeypatch)
    assert measured_choice("gelu", CHOICES, never) == "plain"


def test_two_processes_keep_the_choices_of_each_other(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_process(choice: str) -> str:
        """Measure, while another process stores the opposite for the same key and one for another key."""
        with monkeypatch.context() as context:
            restart(context)
            measured_choice("gelu", CHOICES, once("packed"))
            measured_choice("linear", CHOICES, once("packed"))
        return choice

    assert measured_choice("gelu", CHOICES, lambda: other_process("plain")) == "packed"
    assert measured_choice("linear", CHOICES, never) == "packed"


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_nobody_else_can_write_the_file(umask: int, folder: Path) -> None:
    before = os.umask(umask)
    try:
        measured_choice("gelu", CHOICES, once())
    finally:
        os.umask(before)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_cache_each_process_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> Path:
        raise PermissionError(name)

    monkeypatch.setattr(module, "private_cache", refuse)
    assert measured_choice("gelu", CHOICES, once("plain")) == "plain"
    assert measured_choice("gelu", CHOICES, never) == "plain"


def test_a_file_that_cannot_be_written_is_no_error(folder: Path) -> None:
    file = module._choices_file(module._machine_digest(torch.get_num_threads()))
    (file / "in the way").mkdir(parents=True)
    assert measured_choice("gelu", CHOICES, once("plain")) == "plain"


@pytest.mark.parametrize(
    "first, second, want", [(1.0, 0.9, "second"), (1.0, 0.98, "first"), (1.0, 2.0, "first"), (0.0, 0.0, "first")]
)
def test_the_fastest_saves_more_than_the_margin(
    first: float, second: float, want: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def taking(seconds: float) -> Callable[[], None]:
        delays = iter([9.0, 9.0])  # the warm-up and the first turn are disturbed

        def candidate() -> None:
            nonlocal now
            now += seconds + next(delays, 0.0)

        return candidate

    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    assert fastest({"first": taking(first), "second": taking(second)}) == want


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
