"""Fuzzing program with a small budget; `python tests/fuzz/fuzz.py` runs the full one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.fuzz import CRASH, HANG, WRONG, Child, fuzz
from tests.fuzz.kinds import KINDS, REFUSED, USED
from tests.fuzz.signals import stop_runs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_inputs_neither_crash_nor_hang_nor_give_wrong_values(kind: str) -> None:
    outcome = fuzz(kind, inputs=40, seed=20261128)
    assert not outcome.failures
    assert outcome.total == 40 and outcome.counts[REFUSED]


@pytest.mark.parametrize("kind", KINDS)
def test_whole_inputs_are_used(kind: str, tmp_path: Path) -> None:
    checker = KINDS[kind]()
    found = {path.name: checker.check(path, path) for path in checker.make(tmp_path)}
    assert found == {name: REFUSED if name.startswith("hostile") else USED for name in found}


@pytest.mark.extensive
def test_a_stopped_run_ends_and_resumes_to_the_same_weights() -> None:
    assert not stop_runs(1, seed=3).failures


def test_crashes_hangs_and_wrong_values_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program itself: a child that dies, raises, gives wrong values or does not answer is counted as such."""
    source = """
import os, time
from tests.fuzz import kinds
class Bad:
    mutations = kinds.BINARY
    def check(self, path, original):
        if path.name == "die": os._exit(3)
        if path.name == "raise": raise KeyError("x")
        if path.name == "wrong": raise kinds.WrongValue("y")
        time.sleep(60)
kinds.KINDS["bad"] = Bad
"""
    (tmp_path / "sitecustomize.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    monkeypatch.setattr("tests.fuzz.fuzz.TIME_LIMIT", 15.0)
    child = Child("bad")
    try:
        found = {name: child.check(Path(name), Path("o"))[0] for name in ("raise", "wrong", "die", "hang")}
    finally:
        child.close()
    assert found == {"raise": CRASH, "wrong": WRONG, "die": CRASH, "hang": HANG}
